import System

/// One thing that goes wrong.
enum Blow: Equatable {
    /// About half of the devices lose their connections.
    case cutDevices
    /// Many people are put into many chats by one transaction.
    case massImport
    /// All connections of a process are cut, in both directions; it lives on.
    case cutLinks
    case kill
    /// Stopped, and continued after so long: enough for heartbeats to fail, not enough to hold up the storm.
    case pause(ms: Int)
    /// Ended in order, as for good: whoever does its work next must not wait for it.
    case stop
    /// Another process takes part that should not, for some rounds.
    case guest(ChaosGuests.Kind)

    static func random(against victim: Victims.Victim, using generator: inout SplitMix) -> Blow {
        switch Int.random(in: 0..<20, using: &generator) {
        case 0: .cutDevices
        case 1: .massImport
        case 2...5: .cutLinks
        case 6, 7: .pause(ms: .random(in: 200...3000, using: &generator))
        // Longer than its readers are used to.
        case 8: victim.name == "cdc" ? .pause(ms: .random(in: 5000...12_000, using: &generator)) : .kill
        case 9...11: .stop
        case 12...14: ChaosGuests.Kind.random(beside: victim, using: &generator).map(Blow.guest) ?? .kill
        default: .kill
        }
    }

    /// For the report.
    func name(of victim: Victims.Victim) -> String {
        switch self {
        case .cutDevices: "cut devices"
        case .massImport: "import"
        case .cutLinks: "cut \(victim.name)"
        case .kill: "kill \(victim.name)"
        case .pause(let ms): ms > 3000 ? "freeze \(victim.name)" : "pause \(victim.name)"
        case .stop: "stop \(victim.name)"
        case .guest(let kind): "\(kind.rawValue) \(victim.name)"
        }
    }
}
