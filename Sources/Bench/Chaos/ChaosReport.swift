/// What a storm was and what came of it.
public struct ChaosReport: Sendable {
    public let seed: UInt64
    public let rounds: Int
    public let users: Int
    public let devices: Int
    public let chats: Int
    public let sent: Int
    public let acknowledged: Int
    public let refused: [String: Int]
    public let causalSends: Int
    public let deliveries: Int
    public let changes: Int
    public let connects: Int
    public let repeatsAfterReconnect: Int
    let presence: ChaosVisitors.Findings
    public let blows: [String: Int]
    /// What could not be tried here, and why.
    public let leftOut: String?
    public let violations: [String]

    public var text: String {
        let blows = blows.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: "   ")
        let refused = refused.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        var lines = [
            "chaos: \(rounds) rounds, seed \(seed); \(devices) devices of \(users) users in \(chats) chats",
            "  blows           \(blows)",
            "  messages        \(sent) sent, \(acknowledged) acknowledged, refused: \(refused.isEmpty ? "none" : refused)",
            "  causal          \(causalSends) of senders who knew of a change that decides who gets them",
            "  deliveries      \(deliveries) (\(repeatsAfterReconnect) came again after a reconnect and were dropped by their seq)",
            "  memberships     \(changes) changes",
            "  connects        \(connects)",
            "  presence        \(presence.told + presence.logged) facts checked: \(presence.told) told to watchers, \(presence.logged) in chat.presence; \(presence.moves) comings and goings; true after \(presence.trueAfterMs.map(String.init).joined(separator: ", ")) ms",
            "  violations      \(violations.count)",
        ]
        if let leftOut { lines.insert("  left out        \(leftOut)", at: 2) }
        lines += violations.prefix(20).map { "    \($0)" }
        return lines.joined(separator: "\n") + "\n"
    }
}
