-- Deposits, withdrawals and payments without a card; attempts at gateways, routes, callbacks, tokens of cards. SQLite changes
-- no constraint of a table, so transactions are copied into one with the new ones.

CREATE TABLE transactions_new (
    id                BLOB    NOT NULL PRIMARY KEY,
    kind              TEXT    NOT NULL DEFAULT 'payment' CHECK (kind IN ('payment', 'deposit', 'withdrawal')),
    customer_id       TEXT    NOT NULL,
    description       TEXT    NOT NULL,
    amount            INTEGER NOT NULL CHECK (amount > 0),
    currency          TEXT    NOT NULL,
    payment_method    TEXT    NOT NULL,
    card_holder_name  TEXT,
    card_expiry       INTEGER, -- year * 100 + month
    card_last_four    TEXT CHECK (length(card_last_four) = 4),
    card_brand        TEXT,
    installments      INTEGER NOT NULL CHECK (installments BETWEEN 1 AND 12),
    order_id          TEXT,
    user_id           TEXT,
    country           TEXT,
    requested_gateway TEXT,
    status            TEXT    NOT NULL,
    status_reason     TEXT,
    gateway           TEXT,
    gateway_reference TEXT,
    version           INTEGER NOT NULL, -- counts every write
    sequence          INTEGER NOT NULL DEFAULT 1, -- counts its events
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    sealed_card       BLOB, -- ciphertext, erased by the write that ends authorization
    CHECK (sealed_card IS NULL OR status = 'processing'),
    CHECK ((card_holder_name IS NULL) = (card_last_four IS NULL) AND (card_expiry IS NULL) = (card_last_four IS NULL)
        AND (card_brand IS NULL) = (card_last_four IS NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO transactions_new (id, kind, customer_id, description, amount, currency, payment_method, card_holder_name,
    card_expiry, card_last_four, card_brand, installments, status, status_reason, gateway, gateway_reference, version, sequence,
    created_at, updated_at, sealed_card)
SELECT id, 'payment', customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry,
    card_last_four, card_brand, installments, status, status_reason, gateway, gateway_reference, version, version, created_at,
    updated_at, sealed_card
FROM transactions;

DROP TABLE transactions;
ALTER TABLE transactions_new RENAME TO transactions;
CREATE INDEX transactions_by_customer ON transactions (customer_id, kind, id);
-- What shredding, rotation and the search for lost messages look for.
CREATE INDEX transactions_processing ON transactions (id) WHERE status = 'processing';

-- The release before, while it still runs or after a roll-back, knows no sequence and numbers events by the version. No later
-- release changes a status without an event.
CREATE TRIGGER transactions_number_events AFTER UPDATE OF status ON transactions
    WHEN NEW.status <> OLD.status AND NEW.sequence = OLD.sequence
BEGIN
    UPDATE transactions SET sequence = version WHERE id = NEW.id;
END;

-- What a gateway is asked, written before it is asked. Every write of a row moves the version of its transaction on.
CREATE TABLE gateway_attempts (
    transaction_id    BLOB    NOT NULL,
    number            INTEGER NOT NULL CHECK (number > 0),
    gateway           TEXT    NOT NULL,
    reference         BLOB    NOT NULL,
    state             TEXT    NOT NULL,
    gateway_reference TEXT,
    reason            TEXT,
    check_at          INTEGER, -- while it is unresolved: when the gateway is asked again at the latest
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    PRIMARY KEY (transaction_id, number),
    CHECK ((state IN ('open', 'pending', 'voiding')) = (check_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX gateway_attempts_due ON gateway_attempts (check_at) WHERE check_at IS NOT NULL;
-- Those that may have charged: not the many that wait for a callback.
CREATE INDEX gateway_attempts_in_doubt ON gateway_attempts (created_at) WHERE state IN ('open', 'voiding');

CREATE TABLE gateways (
    name       TEXT    NOT NULL PRIMARY KEY,
    protocol   TEXT    NOT NULL,
    url        TEXT    NOT NULL,
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- An empty criterion fits all.
CREATE TABLE gateway_routes (
    gateway        TEXT    NOT NULL,
    country        TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    method         TEXT    NOT NULL,
    currency       TEXT    NOT NULL,
    priority       INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 65535),
    retry_declines TEXT    NOT NULL, -- a JSON array
    PRIMARY KEY (gateway, country, kind, method, currency)
) STRICT, WITHOUT ROWID;

CREATE TABLE gateway_health (
    gateway     TEXT    NOT NULL,
    instance    TEXT    NOT NULL,
    breaker     TEXT    NOT NULL,
    failures    INTEGER NOT NULL,
    reported_at INTEGER NOT NULL,
    PRIMARY KEY (gateway, instance)
) STRICT, WITHOUT ROWID;

CREATE TABLE gateway_callbacks (
    id                BLOB    NOT NULL PRIMARY KEY,
    transaction_id    BLOB    NOT NULL,
    gateway           TEXT    NOT NULL,
    gateway_reference TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    amount            INTEGER,
    currency          TEXT,
    received_at       INTEGER NOT NULL,
    outcome           TEXT,    -- what became of it; NULL until it was looked at
    concluded_at      INTEGER,
    CHECK ((amount IS NULL) = (currency IS NULL))
) STRICT, WITHOUT ROWID;

-- A corrected amount is another callback.
CREATE UNIQUE INDEX gateway_callbacks_once ON gateway_callbacks
    (transaction_id, gateway, gateway_reference, status, coalesce(amount, -1), coalesce(currency, ''));
CREATE INDEX gateway_callbacks_by_outcome ON gateway_callbacks (outcome, id) WHERE outcome IS NOT NULL;

-- Cards that wait to be paid with, once.
CREATE TABLE card_tokens (
    token            BLOB    NOT NULL PRIMARY KEY,
    customer_id      TEXT    NOT NULL,
    card_holder_name TEXT    NOT NULL,
    card_expiry      INTEGER NOT NULL,
    card_last_four   TEXT    NOT NULL CHECK (length(card_last_four) = 4),
    card_brand       TEXT    NOT NULL,
    sealed_card      BLOB    NOT NULL,
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX card_tokens_by_expiry ON card_tokens (expires_at);

-- Keys of the vault, each encrypted under its master key.
CREATE TABLE vault_keys (
    name       TEXT    NOT NULL PRIMARY KEY,
    wrapped    BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
