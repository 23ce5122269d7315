/// What a storm was and what came of it; or several, of seeds that follow each other, together.
public struct ChaosReport: Sendable {
    public private(set) var seeds: ClosedRange<UInt64>
    public private(set) var rounds: Int
    public let users: Int
    public let devices: Int
    public let chats: Int
    public private(set) var sent: Int
    public private(set) var acknowledged: Int
    public private(set) var refused: [String: Int]
    public private(set) var causalSends: Int
    public private(set) var deliveries: Int
    public private(set) var changes: Int
    public private(set) var connects: Int
    public private(set) var repeatsAfterReconnect: Int
    private(set) var presence: ChaosVisitors.Findings
    public private(set) var blows: [String: Int]
    /// What could not be tried here, and why.
    public private(set) var leftOut: String?
    public private(set) var violations: [String]

    public var text: String {
        let blows = blows.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: "   ")
        let refused = refused.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        let storms = seeds.count == 1 ? "seed \(seeds.lowerBound)" : "seeds \(seeds.lowerBound) to \(seeds.upperBound)"
        var lines = [
            "chaos: \(rounds) rounds, \(storms); \(devices) devices of \(users) users in \(chats) chats",
            "  blows           \(blows)",
            "  messages        \(sent) sent, \(acknowledged) acknowledged, refused: \(refused.isEmpty ? "none" : refused)",
            "  causal          \(causalSends) of senders who knew of a change that decides who gets them",
            "  deliveries      \(deliveries) (\(repeatsAfterReconnect) came again after a reconnect and were dropped by their seq)",
            "  memberships     \(changes) changes",
            "  connects        \(connects)",
            "  presence        \(presence.text)",
            "  violations      \(violations.count)",
        ]
        if let leftOut { lines.insert("  left out        \(leftOut)", at: 2) }
        lines += violations.prefix(20).map { "    \($0)" }
        return lines.joined(separator: "\n") + "\n"
    }

    public mutating func add(_ next: ChaosReport) {
        seeds = seeds.lowerBound...next.seeds.upperBound
        rounds += next.rounds
        sent += next.sent
        acknowledged += next.acknowledged
        refused.merge(next.refused, uniquingKeysWith: +)
        causalSends += next.causalSends
        deliveries += next.deliveries
        changes += next.changes
        connects += next.connects
        repeatsAfterReconnect += next.repeatsAfterReconnect
        presence.add(next.presence)
        blows.merge(next.blows, uniquingKeysWith: +)
        leftOut = leftOut ?? next.leftOut
        violations += next.violations
    }
}
