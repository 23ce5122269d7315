import PushLink
import WebSocket
import Wire

/// The codes of `error` frames and HTTP errors.
enum ErrorCode: String, Sendable, CaseIterable {
    case badFrame = "bad_frame"
    case tooLarge = "too_large"
    case notMember = "not_member"
    case rateLimited = "rate_limited"
    case overloaded
    case tooMany = "too_many"
}

/// What the server says, as whole WebSocket frames.
enum ServerFrame {
    private static func text(_ body: (inout JSONWriter) -> Void) -> [UInt8] {
        var json = JSONWriter()
        json.object(body)
        return Frame.encode(.text, json.bytes)
    }

    static func hello(session: String, instance: String, user: UserID, device: DeviceID, heartbeatMs: Int) -> [UInt8] {
        text {
            $0.field("type", "hello")
            $0.field("session", session)
            $0.field("instance", instance)
            $0.field("user", user)
            $0.field("device", device)
            $0.field("heartbeat_ms", heartbeatMs)
        }
    }

    static func sent(id: MessageID, chat: ChatID, seq: Int64, ts: Int64) -> [UInt8] {
        text {
            $0.field("type", "sent")
            $0.field("id", id)
            $0.field("chat", chat)
            $0.field("seq", seq)
            $0.field("ts", ts)
        }
    }

    static func error(_ code: ErrorCode, _ message: String, id: MessageID? = nil, retryAfterMs: Int? = nil) -> [UInt8] {
        text {
            $0.field("type", "error")
            if let id { $0.field("id", id) }
            $0.field("code", code.rawValue)
            $0.field("message", message)
            if let retryAfterMs { $0.field("retry_after_ms", retryAfterMs) }
        }
    }

    static func caughtUp(_ cursor: Cursor, isReset: Bool) -> [UInt8] {
        text {
            $0.field("type", "caught_up")
            $0.field("cursor", cursor.text)
            if isReset { $0.field("reset", true) }
        }
    }

    static func presence(_ notice: PresenceNotice) -> [UInt8] {
        text {
            $0.field("type", "presence")
            $0.field("user", notice.user)
            $0.field("status", notice.status == .online ? "online" : "offline")
            $0.field("last_seen", notice.lastSeen)
        }
    }

    static func pong(_ number: [UInt8]?) -> [UInt8] {
        text {
            $0.field("type", "pong")
            if let number { $0.field("n", raw: number.span) }
        }
    }

    /// Section 5.5.2's ping, the same for everyone.
    static let ping = Frame.encode(.ping, [UInt8]())
}

extension CloseCode {
    /// Do not come back with this token.
    static let unauthorised = CloseCode(rawValue: 4001)
    /// Do not come back: the client is wrong.
    static let clientError = CloseCode(rawValue: 4002)
    /// Another session of the device has taken over.
    static let takenOver = CloseCode(rawValue: 4003)
    /// Come back at once and resume.
    static let tooSlow = CloseCode(rawValue: 4008)
    /// Come back later: nothing was heard for too long.
    static let silent = CloseCode(rawValue: 4009)
}
