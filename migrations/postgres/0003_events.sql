-- Refunds, orders, webhook endpoints and deliveries; events can be listed.

ALTER TABLE transactions
    ADD COLUMN placed_order uuid, -- the order that is paid with it, where it was placed here
    ADD COLUMN correlation_id text,
    ADD COLUMN refund_count smallint NOT NULL DEFAULT 0,
    ADD COLUMN refund_pending bigint NOT NULL DEFAULT 0 CHECK (refund_pending >= 0),
    ADD COLUMN refunded bigint NOT NULL DEFAULT 0 CHECK (refunded >= 0),
    ADD CONSTRAINT transactions_give_back_at_most_all CHECK (refund_pending + refunded <= amount),
    ADD CONSTRAINT transactions_of_orders_correlate CHECK ((placed_order IS NULL) = (correlation_id IS NULL));

CREATE INDEX transactions_of_orders ON transactions (customer_id, id) WHERE placed_order IS NOT NULL;

-- What a refund takes back of an instalment is a payable, too: refund is its number, and neither amount is positive.
ALTER TABLE payables
    ADD COLUMN refund smallint NOT NULL DEFAULT 0,
    DROP CONSTRAINT payables_fee_check,
    DROP CONSTRAINT payables_receivable_check,
    DROP CONSTRAINT payables_by_installment,
    ADD CONSTRAINT payables_by_installment UNIQUE (transaction_id, installment, refund),
    ADD CONSTRAINT payables_signs
        CHECK (CASE WHEN refund = 0 THEN fee >= 0 AND receivable >= 0 ELSE fee <= 0 AND receivable <= 0 END);

CREATE TABLE refunds (
    id                uuid        NOT NULL PRIMARY KEY,
    transaction_id    uuid        NOT NULL,
    number            smallint    NOT NULL CHECK (number > 0),
    customer_id       text        NOT NULL,
    amount            bigint      NOT NULL CHECK (amount > 0),
    currency          text        NOT NULL,
    status            text        NOT NULL,
    reason            text,
    gateway_reference text,
    check_at          timestamptz, -- while it is pending: when the gateway is asked again at the latest
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    CONSTRAINT refunds_by_transaction UNIQUE (transaction_id, number),
    CONSTRAINT refunds_checked_while_pending CHECK ((status = 'pending') = (check_at IS NOT NULL))
);

CREATE INDEX refunds_due ON refunds (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX refunds_pending ON refunds (created_at) WHERE status = 'pending';

CREATE TABLE orders (
    id                  uuid        NOT NULL PRIMARY KEY,
    customer_id         text        NOT NULL,
    user_id             text        NOT NULL,
    total               bigint      NOT NULL CHECK (total > 0),
    currency            text        NOT NULL,
    payment_method      text        NOT NULL,
    status              text        NOT NULL,
    status_reason       text,
    is_created          boolean     NOT NULL,
    is_cancel_requested boolean     NOT NULL,
    payment_id          uuid,
    correlation_id      text        NOT NULL,
    version             bigint      NOT NULL,
    sequence            bigint      NOT NULL,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX orders_by_customer ON orders (customer_id, id);
-- What is looked through for orders whose message was lost: what waits, and what was cancelled lately.
CREATE INDEX orders_waiting ON orders (id) WHERE status = 'pending_payment' OR (status = 'paid' AND is_cancel_requested);
CREATE INDEX orders_cancelled ON orders (updated_at, id) WHERE status = 'cancelled' AND payment_id IS NOT NULL;

-- How many orders, and payments of orders, are in a status, and the sum of their amounts: moved by the writes that move them.
CREATE TABLE status_counts (
    customer_id text   NOT NULL,
    subject     text   NOT NULL, -- order, payment
    status      text   NOT NULL,
    currency    text   NOT NULL,
    count       bigint NOT NULL,
    amount      bigint NOT NULL,
    PRIMARY KEY (customer_id, subject, status, currency)
) WITH (fillfactor = 50);

CREATE INDEX outbox_by_customer ON outbox (customer_id, id) WHERE sequence IS NOT NULL;

CREATE TABLE webhook_endpoints (
    id                   uuid        NOT NULL PRIMARY KEY,
    customer_id          text        NOT NULL,
    url                  text        NOT NULL,
    events               text[]      NOT NULL, -- the kinds that it asks for; empty for all
    description          text        NOT NULL,
    status               text        NOT NULL CHECK (status IN ('enabled', 'disabled')),
    disabled_reason      text,
    secret               bytea       NOT NULL, -- ciphertext
    previous_secret      bytea,      -- ciphertext; signs, too, until previous_until
    previous_until       timestamptz,
    failing_since        timestamptz,
    version              bigint      NOT NULL,
    sequence             bigint      NOT NULL,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    CONSTRAINT webhook_endpoints_previous_is_whole CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);

CREATE INDEX webhook_endpoints_by_customer ON webhook_endpoints (customer_id, id);

-- An event for an endpoint: a queue of its own. It is due while due_at is set and past; a lease moves due_at on.
CREATE TABLE webhook_deliveries (
    event_id    uuid        NOT NULL,
    endpoint_id uuid        NOT NULL,
    status      text        NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
    due_at      timestamptz,
    attempts    integer     NOT NULL DEFAULT 0, -- that were made in all
    tries       integer     NOT NULL DEFAULT 0, -- since it was last asked for
    lease       bigint      NOT NULL DEFAULT 0,
    is_leased   boolean     NOT NULL DEFAULT false, -- an attempt may be in hand until due_at
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (event_id, endpoint_id),
    CONSTRAINT webhook_deliveries_due_while_pending CHECK ((status = 'pending') = (due_at IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at) WHERE due_at IS NOT NULL;

CREATE TABLE webhook_attempts (
    event_id    uuid        NOT NULL,
    endpoint_id uuid        NOT NULL,
    number      integer     NOT NULL,
    started_at  timestamptz NOT NULL,
    duration_ms integer     NOT NULL,
    status      smallint,
    error       text,
    answer      text        NOT NULL, -- the beginning of the body
    PRIMARY KEY (event_id, endpoint_id, number)
);
