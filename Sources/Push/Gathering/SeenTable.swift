public import Wire

/// When people were last seen with a session, as `chat.presence` tells: whoever was seen after a message found no
/// session has got it, and is not told about it. Kept as long as `chat.push` keeps its records.
public struct SeenTable {
    static let keptMs: Int64 = 86_400_000

    private var seenAtMs: [UserID: Int64] = [:]
    private var prunedAtMs: Int64 = 0

    public init() {}

    public var count: Int { seenAtMs.count }

    /// The topic is read from its beginning: most of what it tells is too old to matter.
    public mutating func saw(_ user: UserID, atMs: Int64, nowMs: Int64) {
        if nowMs - prunedAtMs > 3_600_000 {
            prunedAtMs = nowMs
            seenAtMs = seenAtMs.filter { $0.value > nowMs - Self.keptMs }
        }
        guard atMs > nowMs - Self.keptMs, atMs > seenAtMs[user] ?? 0 else { return }
        seenAtMs[user] = atMs
    }

    public func wasSeen(_ user: UserID, afterMs: Int64) -> Bool { (seenAtMs[user] ?? 0) > afterMs }
}
