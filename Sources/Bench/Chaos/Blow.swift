import System

/// One thing that goes wrong.
enum Blow: Equatable {
    /// About half of the devices lose their connections.
    case cutDevices
    /// All connections of a process are cut, in both directions; it lives on.
    case cutLinks
    case kill
    /// Stopped, and continued after so long: enough for heartbeats to fail, not enough to hold up the storm.
    case pause(ms: Int)
    /// Postgres ends its sessions and itself in order.
    case restart

    static func random(against victim: Victims.Victim, using generator: inout SplitMix) -> Blow {
        switch Int.random(in: 0..<12, using: &generator) {
        case 0: .cutDevices
        case 1...3: .cutLinks
        case 4, 5: .pause(ms: .random(in: 200...3000, using: &generator))
        default: victim.name == "postgres" && Bool.random(using: &generator) ? .restart : .kill
        }
    }

    /// For the report.
    func name(of victim: Victims.Victim) -> String {
        switch self {
        case .cutDevices: "cut devices"
        case .cutLinks: "cut \(victim.name)"
        case .kill: "kill \(victim.name)"
        case .pause: "pause \(victim.name)"
        case .restart: "restart \(victim.name)"
        }
    }
}
