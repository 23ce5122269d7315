import PushLink
import Runtime
import Wire

/// One chat server as this worker knows it. Its number stays the same until it is forgotten, through lost links.
struct InstanceState {
    var identity: LinkIdentity
    var address: String
    var link: WorkerLink?
    /// Counts the links; sessions named on an earlier one are not trusted.
    var generation: UInt8 = 0
    /// When `chat.instances` last told of it.
    var announcedMs: Int64
    /// It has spoken since we listen; else it stood in the log, and may be long gone.
    var hasSpoken = true
    /// The workers that it names as connected.
    var workers: [String] = []
    /// Why there is no link, as far as that is known.
    var failure: String?
    /// It announces itself and cannot be reached, for so long that its users are taken to have no session.
    var isGivenUp = false
    /// Since when there is no open link.
    var lostMs: Int64?
    /// When the link before the present one was lost: whoever has gone since was seen until then.
    var lastHeardMs: Int64?
    var isConnecting = false
    var nextConnectMs: Int64 = 0
    var connectDelayMs: Int64 = 0
    /// The partitions whose sessions it has told in full on the present link.
    var heard: Set<Int32> = []
    /// Those that it has told since they are ours, on whichever link: who was there is known, and who came since if the link
    /// is not away for long.
    var told: Set<Int32> = []
    var fills = Ring<FillRequest>()
    /// Since when its link has had too much on its way.
    var fullSinceMs: Int64?
    /// When it last acknowledged something.
    var acknowledgedMs: Int64 = 0
    /// Full for so long that others were kept waiting: it is sent no records until it has drained.
    var isLeftBehind = false
    /// It has been left behind lately; until then it is at once when it is full again.
    var hurriesUntilMs: Int64 = 0
    /// The partitions of which something was not sent on the present link; nothing more of them is before the sessions
    /// are asked for again.
    var missed: Set<Int32> = []
    /// Watched users whose presence changed while the link was full.
    var unheardPresence: Set<UserID> = []

    var isOpen: Bool { link?.isOpen ?? false }

    func takesRecords(of partition: Int32) -> Bool { isOpen && !isLeftBehind && !missed.contains(partition) }

    /// Whether it is there, by all that is known. One that only stood in the log counts until a link to it cannot be made.
    func isAlive(nowMs: Int64, silentMs: Int64) -> Bool {
        nowMs - announcedMs < silentMs && (hasSpoken || failure == nil)
    }

    var isWaitedFor: Bool { fullSinceMs != nil && !isLeftBehind }

    /// Tries again soon, then less often.
    mutating func backOff(nowMs: Int64) {
        connectDelayMs = min(max(connectDelayMs * 2, 50), 1_000)
        nextConnectMs = nowMs + connectDelayMs
    }
}
