-- The production store. Ids are UUIDv7, so primary keys grow at their end and their order is the order of creation. Amounts
-- are minor units. Rows that are updated soon leave room in their pages (fillfactor), so that an update stays in its page
-- and touches no index.

CREATE TABLE transactions (
    id                uuid        NOT NULL PRIMARY KEY,
    customer_id       text        NOT NULL,
    description       text        NOT NULL,
    amount            bigint      NOT NULL CHECK (amount > 0),
    currency          text        NOT NULL,
    payment_method    text        NOT NULL,
    card_holder_name  text        NOT NULL,
    card_expiry       integer     NOT NULL, -- year * 100 + month
    card_last_four    text        NOT NULL CHECK (length(card_last_four) = 4),
    card_brand        text        NOT NULL,
    installments      smallint    NOT NULL CHECK (installments BETWEEN 1 AND 12),
    -- Payables that wait for funds: settlement counts them down, so that two chunks with one instalment each cannot both
    -- believe that the other one is still waiting.
    waiting_payables  smallint    NOT NULL DEFAULT 0 CHECK (waiting_payables >= 0),
    status            text        NOT NULL,
    status_reason     text,
    gateway           text,
    gateway_reference text,
    version           bigint      NOT NULL,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    sealed_card       bytea, -- ciphertext, erased by the write that ends authorization
    CONSTRAINT transactions_card_until_authorized CHECK ((status = 'processing') = (sealed_card IS NOT NULL)),
    CONSTRAINT transactions_pending_while_payables_wait CHECK (status <> 'pending_payment' OR waiting_payables > 0)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX transactions_by_customer ON transactions (customer_id, id);

CREATE TABLE payables (
    id             uuid        NOT NULL PRIMARY KEY,
    transaction_id uuid        NOT NULL,
    installment    smallint    NOT NULL,
    customer_id    text        NOT NULL,
    currency       text        NOT NULL,
    fee_percent    numeric     NOT NULL,
    fee            bigint      NOT NULL CHECK (fee >= 0),
    receivable     bigint      NOT NULL CHECK (receivable >= 0),
    status         text        NOT NULL CHECK (status IN ('waiting_funds', 'paid')),
    payment_date   timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CONSTRAINT payables_by_installment UNIQUE (transaction_id, installment)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX payables_by_customer ON payables (customer_id, id);
CREATE INDEX payables_due ON payables (payment_date, id) WHERE status = 'waiting_funds';

-- One row per customer and currency, moved by the writes that create and settle payables, so that reading it is one look-up.
CREATE TABLE balances (
    customer_id   text   NOT NULL,
    currency      text   NOT NULL,
    available     bigint NOT NULL,
    waiting_funds bigint NOT NULL,
    PRIMARY KEY (customer_id, currency)
) WITH (fillfactor = 50);

-- Events and messages, written with the state that they describe. A row with a sequence is an event and stays; a row with
-- a queue is a message, pending while visible_at is set (here as a queue: until it is acknowledged; before a broker: until
-- it is sent); a row without a sequence is a command and goes when it is done.
CREATE TABLE outbox (
    id            uuid        NOT NULL PRIMARY KEY,
    kind          text        NOT NULL,
    aggregate_id  uuid        NOT NULL,
    sequence      bigint,
    customer_id   text,
    body          text        NOT NULL,
    sent_at       timestamptz NOT NULL,
    queue         text,
    visible_at    timestamptz, -- when it can be received next
    receive_count integer     NOT NULL DEFAULT 0,
    lease         bigint      NOT NULL DEFAULT 0, -- names the latest delivery and moves on when it ends; never goes back
    reason        text,        -- why the latest attempt failed
    dead_at       timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- No two events of an aggregate have one place; the relay finds the events before another by it.
CREATE UNIQUE INDEX outbox_by_aggregate ON outbox (aggregate_id, sequence) WHERE sequence IS NOT NULL;
CREATE INDEX outbox_pending ON outbox (queue, visible_at, id) WHERE visible_at IS NOT NULL;
CREATE INDEX outbox_dead ON outbox (id) WHERE dead_at IS NOT NULL;

CREATE TABLE idempotency_keys (
    customer_id text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL CHECK (length(fingerprint) = 32),
    status      smallint    NOT NULL,
    body        text        NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (customer_id, key)
);

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

CREATE TABLE settlement_runs (
    id         uuid        NOT NULL PRIMARY KEY,
    due_before timestamptz NOT NULL,
    chunks     integer     NOT NULL,
    created_at timestamptz NOT NULL
);

-- A chunk is a range of the index payables_due: after (from_date, from_id), up to and with (to_date, to_id).
CREATE TABLE settlement_chunks (
    run_id       uuid        NOT NULL REFERENCES settlement_runs (id),
    number       integer     NOT NULL,
    from_date    timestamptz NOT NULL,
    from_id      uuid        NOT NULL,
    to_date      timestamptz NOT NULL,
    to_id        uuid        NOT NULL,
    settled_at   timestamptz,
    payables     bigint      NOT NULL DEFAULT 0,
    transactions bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, number)
);

CREATE TABLE settlement_amounts (
    run_id   uuid   NOT NULL REFERENCES settlement_runs (id),
    currency text   NOT NULL,
    amount   bigint NOT NULL,
    PRIMARY KEY (run_id, currency)
) WITH (fillfactor = 50);
