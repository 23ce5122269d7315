import Wire

/// When people were last seen with a session, as `chat.presence` tells: whoever was seen after a message was sent has
/// it, and is not told about it. Kept as long as `chat.push` keeps its records.
struct SeenTable {
    static let keptMs: Int64 = 86_400_000

    private var seenAtMs: [UserID: Int64] = [:]
    private var prunedAtMs: Int64 = 0

    mutating func saw(_ user: UserID, atMs: Int64, nowMs: Int64) {
        if atMs > seenAtMs[user] ?? 0 { seenAtMs[user] = atMs }
        guard nowMs - prunedAtMs > 3_600_000 else { return }
        prunedAtMs = nowMs
        seenAtMs = seenAtMs.filter { $0.value > nowMs - Self.keptMs }
    }

    func wasSeen(_ user: UserID, afterMs: Int64) -> Bool { (seenAtMs[user] ?? 0) > afterMs }
}
