-- How each device wants to be told while it has no session. Both tables are written by the API and read by `fanout
-- push`, which also removes what the receiver says is gone.

-- Web Push (RFC 8030): where the browser's push service takes messages for this device, and the keys that encrypt them.
CREATE TABLE push_subscriptions (
    user_id uuid NOT NULL,
    device_id uuid NOT NULL,
    endpoint text NOT NULL CHECK (length(endpoint) <= 2048),
    -- The browser's public key, an uncompressed point of P-256, and its secret of 16 bytes.
    p256dh bytea NOT NULL CHECK (length(p256dh) = 65),
    auth bytea NOT NULL CHECK (length(auth) = 16),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, device_id)
);

-- A browser in which somebody else has signed in keeps its endpoint: it must not show the first one's messages.
CREATE INDEX push_subscriptions_by_endpoint ON push_subscriptions USING hash (endpoint);

-- Tokens by which a bridge behind the webhook (FCM, APNs, …) knows the device.
CREATE TABLE push_tokens (
    user_id uuid NOT NULL,
    device_id uuid NOT NULL,
    provider text NOT NULL CHECK (length(provider) <= 64),
    token text NOT NULL CHECK (length(token) <= 4096),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, device_id, provider)
);

CREATE INDEX push_tokens_by_token ON push_tokens USING hash (token);
