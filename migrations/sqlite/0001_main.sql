-- The embedded store. Ids are UUIDv7 as 16-byte blobs, so primary keys grow at their end and their order is the order of
-- creation. Times are milliseconds since 1970 UTC. Amounts are minor units. STRICT tables refuse a value of another type,
-- an integer sum that overflowed into a REAL among them.

CREATE TABLE transactions (
    id                BLOB    NOT NULL PRIMARY KEY,
    customer_id       TEXT    NOT NULL,
    description       TEXT    NOT NULL,
    amount            INTEGER NOT NULL CHECK (amount > 0),
    currency          TEXT    NOT NULL,
    payment_method    TEXT    NOT NULL,
    card_holder_name  TEXT    NOT NULL,
    card_expiry       INTEGER NOT NULL, -- year * 100 + month
    card_last_four    TEXT    NOT NULL CHECK (length(card_last_four) = 4),
    card_brand        TEXT    NOT NULL,
    installments      INTEGER NOT NULL CHECK (installments BETWEEN 1 AND 12),
    status            TEXT    NOT NULL,
    status_reason     TEXT,
    gateway           TEXT,
    gateway_reference TEXT,
    version           INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    sealed_card       BLOB, -- ciphertext, erased by the write that ends authorization
    CHECK ((status = 'processing') = (sealed_card IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX transactions_by_customer ON transactions (customer_id, id);

CREATE TABLE payables (
    id             BLOB    NOT NULL PRIMARY KEY,
    transaction_id BLOB    NOT NULL,
    installment    INTEGER NOT NULL,
    customer_id    TEXT    NOT NULL,
    currency       TEXT    NOT NULL,
    fee_percent    TEXT    NOT NULL,
    fee            INTEGER NOT NULL CHECK (fee >= 0),
    receivable     INTEGER NOT NULL CHECK (receivable >= 0),
    status         TEXT    NOT NULL CHECK (status IN ('waiting_funds', 'paid')),
    payment_date   INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX payables_by_installment ON payables (transaction_id, installment);
CREATE INDEX payables_by_customer ON payables (customer_id, id);
CREATE INDEX payables_due ON payables (payment_date, id) WHERE status = 'waiting_funds';

-- One row per customer and currency, moved by the writes that create and settle payables, so that reading it is one look-up.
CREATE TABLE balances (
    customer_id   TEXT    NOT NULL,
    currency      TEXT    NOT NULL,
    available     INTEGER NOT NULL,
    waiting_funds INTEGER NOT NULL,
    PRIMARY KEY (customer_id, currency)
) STRICT, WITHOUT ROWID;

-- Events and messages, written with the state that they describe. A row with a sequence is an event and stays; a row with
-- a queue is a message, pending while visible_at is set; a row without a sequence is a command and goes when it is done.
CREATE TABLE outbox (
    id            BLOB    NOT NULL PRIMARY KEY,
    kind          TEXT    NOT NULL,
    aggregate_id  BLOB    NOT NULL,
    sequence      INTEGER,
    customer_id   TEXT,
    body          TEXT    NOT NULL,
    sent_at       INTEGER NOT NULL,
    queue         TEXT,
    visible_at    INTEGER, -- when it can be received next
    receive_count INTEGER NOT NULL DEFAULT 0,
    lease         INTEGER NOT NULL DEFAULT 0, -- names the latest delivery; never goes back
    reason        TEXT,    -- why the latest attempt failed
    dead_at       INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_pending ON outbox (queue, visible_at) WHERE visible_at IS NOT NULL;
CREATE INDEX outbox_dead ON outbox (queue, id) WHERE dead_at IS NOT NULL;

CREATE TABLE idempotency_keys (
    customer_id TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    status      INTEGER NOT NULL,
    body        TEXT    NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (customer_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

CREATE TABLE settlement_runs (
    id         BLOB    NOT NULL PRIMARY KEY,
    due_before INTEGER NOT NULL,
    chunks     INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A chunk is a range of the index payables_due: after (from_date, from_id), up to and with (to_date, to_id).
CREATE TABLE settlement_chunks (
    run_id       BLOB    NOT NULL REFERENCES settlement_runs (id),
    number       INTEGER NOT NULL,
    from_date    INTEGER NOT NULL,
    from_id      BLOB    NOT NULL,
    to_date      INTEGER NOT NULL,
    to_id        BLOB    NOT NULL,
    settled_at   INTEGER,
    payables     INTEGER NOT NULL DEFAULT 0,
    transactions INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE settlement_amounts (
    run_id   BLOB    NOT NULL REFERENCES settlement_runs (id),
    currency TEXT    NOT NULL,
    amount   INTEGER NOT NULL,
    PRIMARY KEY (run_id, currency)
) STRICT, WITHOUT ROWID;
