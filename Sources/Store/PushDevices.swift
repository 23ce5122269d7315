internal import PostgresClient
public import Wire

/// How people's devices want to be told while they have no session: Web Push subscriptions, and tokens of the bridges
/// behind the webhook.
public enum PushDevices {
    /// Devices of one user in each table; with more, those go that have not been heard of for longest.
    public static let perUserMax = 20

    public struct Subscription: Sendable, Equatable {
        public let device: DeviceID
        public let endpoint: String
        /// The browser's public key: an uncompressed point of P-256.
        public let publicKey: [UInt8]
        public let secret: [UInt8]

        public init(device: DeviceID, endpoint: String, publicKey: [UInt8], secret: [UInt8]) {
            self.device = device
            self.endpoint = endpoint
            self.publicKey = publicKey
            self.secret = secret
        }
    }

    public struct Token: Sendable, Hashable {
        public let device: DeviceID
        public let provider: String
        public let token: String

        public init(device: DeviceID, provider: String, token: String) {
            self.device = device
            self.provider = provider
            self.token = token
        }
    }

    /// What is known of the user at this place (from 1) of a question.
    public struct Placed<Value: Sendable>: Sendable {
        public let place: Int
        public let value: Value
    }

    // MARK: Asking

    public static func subscriptions(of users: [UserID]) -> Statement<Placed<Subscription>> {
        Statement(
            "push.subscriptions",
            """
            SELECT asked.place, s.device_id, s.endpoint, s.p256dh, s.auth
            FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (user_id, place) JOIN push_subscriptions s USING (user_id)
            """, [.ids(users)]
        ) { row, index in
            guard let place = row.int(index, 0), let device: DeviceID = row.id(index, 1),
                let endpoint = row.text(index, 2)
            else { return nil }
            return Placed(
                place: Int(place),
                value: Subscription(
                    device: device, endpoint: endpoint, publicKey: [UInt8](copying: row.bytes(index, 3)),
                    secret: [UInt8](copying: row.bytes(index, 4))))
        }
    }

    public static func tokens(of users: [UserID]) -> Statement<Placed<Token>> {
        Statement(
            "push.tokens",
            """
            SELECT asked.place, t.device_id, t.provider, t.token
            FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (user_id, place) JOIN push_tokens t USING (user_id)
            """, [.ids(users)]
        ) { row, index in
            guard let place = row.int(index, 0), let device: DeviceID = row.id(index, 1),
                let provider = row.text(index, 2), let token = row.text(index, 3)
            else { return nil }
            return Placed(place: Int(place), value: Token(device: device, provider: provider, token: token))
        }
    }

    /// How many subscriptions a user has.
    public static func count(of user: UserID) -> Statement<Int64> {
        Statement("push.count", "SELECT count(*) FROM push_subscriptions WHERE user_id = $1", [.id(user)]) {
            row, index in row.int(index, 0)
        }
    }

    // MARK: Changing

    /// To be run in one transaction: the endpoint leaves whoever had it, and the user's oldest give way.
    public static func put(_ subscription: Subscription, of user: UserID) -> [Statement<Never>] {
        [
            Statement(
                "push.subscription.take",
                "DELETE FROM push_subscriptions WHERE endpoint = $1 AND (user_id, device_id) <> ($2::uuid, $3::uuid)",
                [.text(subscription.endpoint), .id(user), .id(subscription.device)]),
            Statement(
                "push.subscription.put",
                """
                INSERT INTO push_subscriptions (user_id, device_id, endpoint, p256dh, auth)
                VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (user_id, device_id) DO UPDATE
                SET endpoint = excluded.endpoint, p256dh = excluded.p256dh, auth = excluded.auth, updated_at = now()
                """,
                [
                    .id(user), .id(subscription.device), .text(subscription.endpoint), .bytes(subscription.publicKey),
                    .bytes(subscription.secret),
                ]),
            Statement(
                "push.subscription.bound",
                """
                DELETE FROM push_subscriptions WHERE user_id = $1 AND device_id IN (
                    SELECT device_id FROM push_subscriptions WHERE user_id = $1
                    ORDER BY updated_at DESC, device_id OFFSET \(perUserMax))
                """, [.id(user)]),
        ]
    }

    public static func put(_ token: Token, of user: UserID) -> [Statement<Never>] {
        [
            Statement(
                "push.token.take",
                """
                DELETE FROM push_tokens
                WHERE token = $1 AND provider = $2 AND (user_id, device_id) <> ($3::uuid, $4::uuid)
                """, [.text(token.token), .text(token.provider), .id(user), .id(token.device)]),
            Statement(
                "push.token.put",
                """
                INSERT INTO push_tokens (user_id, device_id, provider, token) VALUES ($1, $2, $3, $4)
                ON CONFLICT (user_id, device_id, provider) DO UPDATE SET token = excluded.token, updated_at = now()
                """, [.id(user), .id(token.device), .text(token.provider), .text(token.token)]),
            Statement(
                "push.token.bound",
                """
                DELETE FROM push_tokens WHERE user_id = $1 AND (device_id, provider) IN (
                    SELECT device_id, provider FROM push_tokens WHERE user_id = $1
                    ORDER BY updated_at DESC, device_id, provider OFFSET \(perUserMax))
                """, [.id(user)]),
        ]
    }

    public static func removeSubscription(of device: DeviceID, _ user: UserID) -> Statement<Never> {
        Statement(
            "push.subscription.remove", "DELETE FROM push_subscriptions WHERE user_id = $1 AND device_id = $2",
            [.id(user), .id(device)])
    }

    /// - Parameter provider: `nil` for all of the device's.
    public static func removeTokens(of device: DeviceID, provider: String?, _ user: UserID) -> Statement<Never> {
        Statement(
            "push.token.remove",
            "DELETE FROM push_tokens WHERE user_id = $1 AND device_id = $2 AND ($3::text IS NULL OR provider = $3)",
            [.id(user), .id(device), provider.map { .text($0) } ?? .null])
    }

    /// Its receiver says it is gone; one that the device has renewed meanwhile stays.
    public static func forget(_ subscription: Subscription, of user: UserID) -> Statement<Never> {
        Statement(
            "push.subscription.forget",
            "DELETE FROM push_subscriptions WHERE user_id = $1 AND device_id = $2 AND endpoint = $3",
            [.id(user), .id(subscription.device), .text(subscription.endpoint)])
    }

    public static func forget(_ token: Token, of user: UserID) -> Statement<Never> {
        Statement(
            "push.token.forget",
            "DELETE FROM push_tokens WHERE user_id = $1 AND device_id = $2 AND provider = $3 AND token = $4",
            [.id(user), .id(token.device), .text(token.provider), .text(token.token)])
    }
}

/// Whether people want to be told of a chat now, and how much of it they have not read.
public struct PushWish: Sendable, Equatable {
    /// The place (from 1) of the person and chat in the question.
    public let place: Int
    /// Muted, in quiet hours, disabled, or no longer a member.
    public let isUnwanted: Bool
    public let readSeq: Int64
    /// Messages of others not yet read, counted up to `Conversations.unreadMax`.
    public let unread: Int64

    public static func of(_ users: [UserID], in chats: [ChatID]) -> Statement<PushWish> {
        Statement(
            "push.wishes",
            """
            SELECT asked.place,
                   coalesce(
                       m.user_id IS NULL OR u.disabled OR m.muted_until > now()
                       OR CASE WHEN u.quiet_from <= u.quiet_to
                               THEN day.minute >= u.quiet_from AND day.minute < u.quiet_to
                               ELSE day.minute >= u.quiet_from OR day.minute < u.quiet_to END, false),
                   coalesce(r.read_seq, -1), unread.count
            FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (user_id, chat_id, place)
            LEFT JOIN members m ON m.user_id = asked.user_id AND m.chat_id = asked.chat_id
            LEFT JOIN chats c ON c.chat_id = asked.chat_id
            LEFT JOIN users u ON u.user_id = asked.user_id
            LEFT JOIN read_state r ON r.user_id = asked.user_id AND r.chat_id = asked.chat_id
            CROSS JOIN LATERAL (
                SELECT extract(hour FROM here) * 60 + extract(minute FROM here) AS minute
                FROM (SELECT now() AT TIME ZONE 'UTC' + coalesce(u.utc_offset, 0) * interval '1 minute' AS here) AS clock
            ) AS day
            CROSS JOIN LATERAL (
                SELECT count(*) FROM (
                    SELECT FROM messages n
                    WHERE n.chat_id = asked.chat_id
                      AND n.ts >= greatest(
                              coalesce(r.read_ts, 0),
                              CASE WHEN c.open_history THEN 0
                                   ELSE floor(extract(epoch FROM m.joined_at) * 1000)::bigint END)
                      AND n.seq > coalesce(r.read_seq, -1) AND n.sender <> asked.user_id AND n.kind = 'text'
                    LIMIT \(Conversations.unreadMax)
                ) AS few
            ) AS unread
            """, [.ids(users), .ids(chats)]
        ) { row, index in
            guard let place = row.int(index, 0), let isUnwanted = row.bool(index, 1), let readSeq = row.int(index, 2),
                let unread = row.int(index, 3)
            else { return nil }
            return PushWish(place: Int(place), isUnwanted: isUnwanted, readSeq: readSeq, unread: unread)
        }
    }
}
