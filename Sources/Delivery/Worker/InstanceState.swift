import PushLink

/// One chat server as this worker knows it. Its number stays the same until it is forgotten, through lost links.
struct InstanceState {
    var identity: LinkIdentity
    var address: String
    var link: WorkerLink?
    /// Counts the links; sessions named on an earlier one are not trusted.
    var generation: UInt8 = 0
    /// When `chat.instances` last told of it.
    var announcedMs: Int64
    /// Since when there is no open link.
    var lostMs: Int64?
    var isConnecting = false
    var nextConnectMs: Int64 = 0
    var connectDelayMs: Int64 = 0
    /// The partitions whose sessions it has told in full on the present link.
    var heard: Set<Int32> = []
    var fills = Ring<FillRequest>()
    var fullSinceMs: Int64?

    var isOpen: Bool { link?.isOpen ?? false }

    /// Tries again soon, then less often.
    mutating func backOff(nowMs: Int64) {
        connectDelayMs = min(max(connectDelayMs * 2, 50), 1_000)
        nextConnectMs = nowMs + connectDelayMs
    }
}
