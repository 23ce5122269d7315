import PushLink
import WebSocket
import Wire

/// One device's WebSocket. What every idle device pays for is kept small; what only some need is in `Busy`.
final class Session {
    let user: UserID
    let device: DeviceID
    let scopes: TokenClaims.Scopes
    let expiresAtS: UInt32
    let issuedAtS: UInt32
    /// permessage-deflate was agreed on.
    let deflates: Bool
    var connection: WebSocket.Connection
    var feed: SessionFeed<[UInt8]>
    /// -1 until `hello` has come and the number of partitions is known.
    var partition: Int32 = -1
    /// When `hello` came: a number of its own within the process (`Siblings.openingUs`).
    var openedUs: Int64 = 0
    var state = State.awaitingHello
    /// Whether the owner of the partition has been told of the session.
    var isRegistered = false
    /// The place the device showed is lost: `caught_up` says so.
    var isReset = false
    /// Memberships have changed since the large chats were asked for, or may have before the session's stream began.
    var isLargeChatsStale = false
    private(set) var busy: Busy?

    enum State: UInt8 {
        case awaitingHello
        /// The stored cursor or the large chats are being asked for.
        case starting
        case active
        case closing
    }

    /// What a session has while it does more than listen.
    final class Busy {
        var standings: [ChatID: Standing] = [:]
        /// Frames that came while a look-up was under way, in order.
        var deferred: [[UInt8]] = []
        var isAsking = false
        var watches: Set<UserID> = []
        /// Of them, those whose presence changed while the device did not keep up.
        var unheardPresence: Set<UserID> = []
        var signals: TokenBucket?
        var watchTokens: TokenBucket?
        var largeChats: [ChatID] = []
        /// They are being asked for, and the session is registered once they are known.
        var isAskingLargeChats = false
        /// History is serving what the device missed.
        var catchUp: CatchUp?
        /// The stored cursor is wanted, and nobody is there to ask.
        var isCursorWanted = false
    }

    /// What is known of a user in a chat.
    struct Standing {
        var isMember: Bool
        /// The highest membership version that the session has seen.
        var metaVersion: Int64
    }

    /// More chats than this are not remembered at once: those beyond are asked for again.
    static let standingsMax = 512

    init(_ claims: TokenClaims, device: DeviceID, deflates: Bool = false) {
        user = claims.user
        self.device = device
        scopes = claims.scopes
        expiresAtS = UInt32(clamping: claims.expiresAtMs / 1000)
        issuedAtS = UInt32(clamping: claims.issuedAtMs / 1000)
        self.deflates = deflates
        connection = WebSocket.Connection(role: .server, mayCompress: deflates)
        feed = SessionFeed(after: nil)
    }

    var issuedAtMs: Int64 { Int64(issuedAtS) * 1000 }

    /// The extras, made when first needed.
    var extras: Busy {
        if let busy { return busy }
        let fresh = Busy()
        busy = fresh
        return fresh
    }

    func remember(_ chat: ChatID, _ standing: Standing) {
        let extras = extras
        if extras.standings.count >= Self.standingsMax, extras.standings[chat] == nil {
            extras.standings.removeAll(keepingCapacity: true)
        }
        extras.standings[chat] = standing
    }
}
