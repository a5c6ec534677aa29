-- Deposits, withdrawals and payments without a card; attempts at gateways, routes, callbacks, tokens of cards.

ALTER TABLE transactions
    ADD COLUMN kind text NOT NULL DEFAULT 'payment' CHECK (kind IN ('payment', 'deposit', 'withdrawal')),
    ADD COLUMN order_id text,
    ADD COLUMN user_id text,
    ADD COLUMN country text,
    ADD COLUMN requested_gateway text,
    ADD COLUMN sequence bigint NOT NULL DEFAULT 1, -- the number of its events; version counts every write
    ALTER COLUMN card_holder_name DROP NOT NULL,
    ALTER COLUMN card_expiry DROP NOT NULL,
    ALTER COLUMN card_last_four DROP NOT NULL,
    ALTER COLUMN card_brand DROP NOT NULL,
    DROP CONSTRAINT transactions_card_until_authorized,
    ADD CONSTRAINT transactions_card_until_authorized CHECK (sealed_card IS NULL OR status = 'processing'),
    ADD CONSTRAINT transactions_card_is_whole
        CHECK (num_nonnulls(card_holder_name, card_expiry, card_last_four, card_brand) IN (0, 4));

UPDATE transactions SET sequence = version;

DROP INDEX transactions_by_customer;
CREATE INDEX transactions_by_customer ON transactions (customer_id, kind, id);
-- What shredding, rotation and the search for lost messages look for.
CREATE INDEX transactions_processing ON transactions (id) WHERE status = 'processing';

-- During an upgrade the release before still writes: it knows no sequence and numbers events by the version. No later release
-- changes a status without an event.
CREATE FUNCTION transactions_number_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.sequence := NEW.version;
    RETURN NEW;
END
$$;
CREATE TRIGGER transactions_number_events BEFORE UPDATE ON transactions FOR EACH ROW
    WHEN (NEW.status <> OLD.status AND NEW.sequence = OLD.sequence) EXECUTE FUNCTION transactions_number_events();

-- What a gateway is asked, written before it is asked. Every write of a row moves the version of its transaction on.
CREATE TABLE gateway_attempts (
    transaction_id    uuid        NOT NULL,
    number            smallint    NOT NULL CHECK (number > 0),
    gateway           text        NOT NULL,
    reference         uuid        NOT NULL,
    state             text        NOT NULL,
    gateway_reference text,
    reason            text,
    check_at          timestamptz, -- while it is unresolved: when the gateway is asked again at the latest
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    PRIMARY KEY (transaction_id, number),
    CONSTRAINT gateway_attempts_checked_while_unresolved
        CHECK ((state IN ('open', 'pending', 'voiding')) = (check_at IS NOT NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX gateway_attempts_due ON gateway_attempts (check_at) WHERE check_at IS NOT NULL;
-- Those that may have charged: not the many that wait for a callback.
CREATE INDEX gateway_attempts_in_doubt ON gateway_attempts (created_at) WHERE state IN ('open', 'voiding');

CREATE TABLE gateways (
    name       text        NOT NULL PRIMARY KEY,
    protocol   text        NOT NULL,
    url        text        NOT NULL,
    enabled    boolean     NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- An empty criterion fits all.
CREATE TABLE gateway_routes (
    gateway        text     NOT NULL,
    country        text     NOT NULL,
    kind           text     NOT NULL,
    method         text     NOT NULL,
    currency       text     NOT NULL,
    priority       integer  NOT NULL CHECK (priority BETWEEN 0 AND 65535),
    retry_declines text[]   NOT NULL,
    PRIMARY KEY (gateway, country, kind, method, currency)
);

CREATE TABLE gateway_health (
    gateway     text        NOT NULL,
    instance    text        NOT NULL,
    breaker     text        NOT NULL,
    failures    bigint      NOT NULL,
    reported_at timestamptz NOT NULL,
    PRIMARY KEY (gateway, instance)
);

CREATE TABLE gateway_callbacks (
    id                uuid        NOT NULL PRIMARY KEY,
    transaction_id    uuid        NOT NULL,
    gateway           text        NOT NULL,
    gateway_reference text        NOT NULL,
    status            text        NOT NULL,
    amount            bigint,
    currency          text,
    received_at       timestamptz NOT NULL,
    outcome           text,       -- what became of it; NULL until it was looked at
    concluded_at      timestamptz,
    CONSTRAINT gateway_callbacks_amount_is_whole CHECK ((amount IS NULL) = (currency IS NULL))
);

-- A corrected amount is another callback.
CREATE UNIQUE INDEX gateway_callbacks_once ON gateway_callbacks
    (transaction_id, gateway, gateway_reference, status, coalesce(amount, -1), coalesce(currency, ''));
CREATE INDEX gateway_callbacks_by_outcome ON gateway_callbacks (outcome, id) WHERE outcome IS NOT NULL;

-- Cards that wait to be paid with, once.
CREATE TABLE card_tokens (
    token            uuid        NOT NULL PRIMARY KEY,
    customer_id      text        NOT NULL,
    card_holder_name text        NOT NULL,
    card_expiry      integer     NOT NULL,
    card_last_four   text        NOT NULL CHECK (length(card_last_four) = 4),
    card_brand       text        NOT NULL,
    sealed_card      bytea       NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL
);

CREATE INDEX card_tokens_by_expiry ON card_tokens (expires_at);

-- Keys of the vault, each encrypted under its master key.
CREATE TABLE vault_keys (
    name       text        NOT NULL PRIMARY KEY,
    wrapped    bytea       NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
