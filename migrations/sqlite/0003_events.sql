-- Refunds, orders, webhook endpoints and deliveries; events can be listed.

ALTER TABLE transactions ADD COLUMN placed_order BLOB; -- the order that is paid with it, where it was placed here
ALTER TABLE transactions ADD COLUMN correlation_id TEXT;
ALTER TABLE transactions ADD COLUMN refund_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE transactions ADD COLUMN refund_pending INTEGER NOT NULL DEFAULT 0
    CHECK (refund_pending >= 0);
ALTER TABLE transactions ADD COLUMN refunded INTEGER NOT NULL DEFAULT 0
    CHECK (refunded >= 0 AND refund_pending + refunded <= amount);

CREATE INDEX transactions_of_orders ON transactions (customer_id, id) WHERE placed_order IS NOT NULL;

-- What a refund takes back of an instalment is a payable, too: refund is its number, and neither amount is positive. SQLite
-- changes no constraint of a table, so payables are copied into one with the new ones.
CREATE TABLE payables_new (
    id             BLOB    NOT NULL PRIMARY KEY,
    transaction_id BLOB    NOT NULL,
    installment    INTEGER NOT NULL,
    refund         INTEGER NOT NULL DEFAULT 0,
    customer_id    TEXT    NOT NULL,
    currency       TEXT    NOT NULL,
    fee_percent    TEXT    NOT NULL,
    fee            INTEGER NOT NULL,
    receivable     INTEGER NOT NULL,
    status         TEXT    NOT NULL CHECK (status IN ('waiting_funds', 'paid')),
    payment_date   INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    CHECK (CASE WHEN refund = 0 THEN fee >= 0 AND receivable >= 0 ELSE fee <= 0 AND receivable <= 0 END)
) STRICT, WITHOUT ROWID;

INSERT INTO payables_new (id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status,
    payment_date, created_at, updated_at)
SELECT id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status, payment_date, created_at,
    updated_at
FROM payables;

DROP TABLE payables;
ALTER TABLE payables_new RENAME TO payables;
CREATE UNIQUE INDEX payables_by_installment ON payables (transaction_id, installment, refund);
CREATE INDEX payables_by_customer ON payables (customer_id, id);
CREATE INDEX payables_due ON payables (payment_date, id) WHERE status = 'waiting_funds';

CREATE TABLE refunds (
    id                BLOB    NOT NULL PRIMARY KEY,
    transaction_id    BLOB    NOT NULL,
    number            INTEGER NOT NULL CHECK (number > 0),
    customer_id       TEXT    NOT NULL,
    amount            INTEGER NOT NULL CHECK (amount > 0),
    currency          TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    reason            TEXT,
    gateway_reference TEXT,
    check_at          INTEGER, -- while it is pending: when the gateway is asked again at the latest
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    CHECK ((status = 'pending') = (check_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX refunds_by_transaction ON refunds (transaction_id, number);
CREATE INDEX refunds_due ON refunds (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX refunds_pending ON refunds (created_at) WHERE status = 'pending';

CREATE TABLE orders (
    id                  BLOB    NOT NULL PRIMARY KEY,
    customer_id         TEXT    NOT NULL,
    user_id             TEXT    NOT NULL,
    total               INTEGER NOT NULL CHECK (total > 0),
    currency            TEXT    NOT NULL,
    payment_method      TEXT    NOT NULL,
    status              TEXT    NOT NULL,
    status_reason       TEXT,
    is_created          INTEGER NOT NULL CHECK (is_created IN (0, 1)),
    is_cancel_requested INTEGER NOT NULL CHECK (is_cancel_requested IN (0, 1)),
    payment_id          BLOB,
    correlation_id      TEXT    NOT NULL,
    version             INTEGER NOT NULL,
    sequence            INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX orders_by_customer ON orders (customer_id, id);
-- What is looked through for orders whose message was lost: what waits, and what was cancelled lately.
CREATE INDEX orders_waiting ON orders (id) WHERE status = 'pending_payment' OR (status = 'paid' AND is_cancel_requested = 1);
CREATE INDEX orders_cancelled ON orders (updated_at, id) WHERE status = 'cancelled' AND payment_id IS NOT NULL;

-- How many orders, and payments of orders, are in a status, and the sum of their amounts: moved by the writes that move them.
CREATE TABLE status_counts (
    customer_id TEXT    NOT NULL,
    subject     TEXT    NOT NULL, -- order, payment
    status      TEXT    NOT NULL,
    currency    TEXT    NOT NULL,
    count       INTEGER NOT NULL,
    amount      INTEGER NOT NULL,
    PRIMARY KEY (customer_id, subject, status, currency)
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_by_customer ON outbox (customer_id, id) WHERE sequence IS NOT NULL;

CREATE TABLE webhook_endpoints (
    id                   BLOB    NOT NULL PRIMARY KEY,
    customer_id          TEXT    NOT NULL,
    url                  TEXT    NOT NULL,
    events               TEXT    NOT NULL, -- the kinds that it asks for, each between commas; empty for all
    description          TEXT    NOT NULL,
    status               TEXT    NOT NULL CHECK (status IN ('enabled', 'disabled')),
    disabled_reason      TEXT,
    secret               BLOB    NOT NULL, -- ciphertext
    previous_secret      BLOB,    -- ciphertext; signs, too, until previous_until
    previous_until       INTEGER,
    failing_since        INTEGER,
    version              INTEGER NOT NULL,
    sequence             INTEGER NOT NULL,
    created_at           INTEGER NOT NULL,
    updated_at           INTEGER NOT NULL,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_endpoints_by_customer ON webhook_endpoints (customer_id, id);

-- An event for an endpoint: a queue of its own. It is due while due_at is set and past; a lease moves due_at on.
CREATE TABLE webhook_deliveries (
    event_id    BLOB    NOT NULL,
    endpoint_id BLOB    NOT NULL,
    status      TEXT    NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
    due_at      INTEGER,
    attempts    INTEGER NOT NULL DEFAULT 0, -- that were made in all
    tries       INTEGER NOT NULL DEFAULT 0, -- since it was last asked for
    lease       INTEGER NOT NULL DEFAULT 0,
    is_leased   INTEGER NOT NULL DEFAULT 0 CHECK (is_leased IN (0, 1)), -- an attempt may be in hand until due_at
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (event_id, endpoint_id),
    CHECK ((status = 'pending') = (due_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at) WHERE due_at IS NOT NULL;

CREATE TABLE webhook_attempts (
    event_id    BLOB    NOT NULL,
    endpoint_id BLOB    NOT NULL,
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status      INTEGER,
    error       TEXT,
    answer      TEXT    NOT NULL, -- the beginning of the body
    PRIMARY KEY (event_id, endpoint_id, number)
) STRICT, WITHOUT ROWID;
