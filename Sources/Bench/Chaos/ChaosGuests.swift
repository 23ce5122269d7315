import System

/// Processes that take part in the system for a while and should not: each is made of one that belongs to it, of whose
/// program, arguments and environment it differs in one thing.
final class ChaosGuests {
    enum Kind: String, CaseIterable {
        /// The same name: one of the two is put out of the group, and must end rather than stand there.
        case twin
        /// Another secret than everybody's: no chat server lets it in.
        case stranger
        /// A clock that is a minute ahead.
        case skewed

        /// nil beside those that have nothing to be confused with.
        static func random(beside victim: Victims.Victim, using generator: inout SplitMix) -> Kind? {
            switch victim.name {
            case "join": .twin
            case "delivery": allCases.randomElement(using: &generator)
            default: nil
            }
        }
    }

    private struct Guest {
        let process: ChildProcess
        var rounds: Int
    }

    private var guests: [Guest] = []
    /// What Debian's package libfaketime puts there.
    private static let skewLibrary = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"

    /// Throws what could not be started, and why.
    func invite(_ kind: Kind, beside victim: Victims.Victim, rounds: Int) throws {
        guard let host = try victim.invocation() else { return }
        var options = ChildProcess.Options()
        options.environment = host.environment
        options.dieWithParent = .kill
        var arguments = host.arguments
        arguments.removeOption("--state")
        // Whoever watches the metrics looks at its host.
        arguments.removeOption("--metrics")
        switch kind {
        case .twin: break
        case .stranger:
            arguments.setOption("--name", to: "\(victim.name)-stranger")
            options.environment?["FANOUT_LINK_SECRET"] = "another secret than everybody's, long enough to be one"
        case .skewed:
            guard File.exists(Self.skewLibrary) else { throw BenchError("\(Self.skewLibrary) is not there") }
            arguments.setOption("--name", to: "\(victim.name)-skewed")
            options.environment?["LD_PRELOAD"] = Self.skewLibrary
            options.environment?["FAKETIME"] = "+60s"
            options.environment?["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
        }
        guests.append(Guest(process: try ChildProcess(host.program, arguments, options: options), rounds: rounds))
    }

    /// Another round: those whose time is over leave.
    func nextRound(using generator: inout SplitMix) {
        for index in guests.indices { guests[index].rounds -= 1 }
        for guest in guests where guest.rounds <= 0 {
            guest.process.kill(Bool.random(using: &generator) ? .terminate : .kill)
        }
        guests.removeAll { $0.rounds <= 0 }
    }

    func leave() {
        for guest in guests { guest.process.stop() }
        guests = []
    }
}

extension [String] {
    mutating func removeOption(_ name: String) {
        guard let index = firstIndex(of: name) else { return }
        removeSubrange(index..<Swift.min(index + 2, count))
    }

    mutating func setOption(_ name: String, to value: String) {
        removeOption(name)
        self += [name, value]
    }
}
