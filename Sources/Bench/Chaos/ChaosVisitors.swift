import System
import Wire

/// Some devices come and go while the storm is on, and all devices watch some of their users, never the same for long.
/// When it is over, what they were told and what the log says must become true, and remain so.
final class ChaosVisitors {
    /// What was found of presence, for the report.
    struct Findings {
        var moves = 0
        var told = 0
        var logged = 0
        /// How long after the storm, or after the changes in the calm behind it, the last fact had become true.
        var slowestMs = 0

        var text: String {
            "\(told + logged) facts checked (\(told) told to watchers, \(logged) in chat.presence), true after at most"
                + " \(slowestMs) ms; \(moves) comings and goings"
        }

        mutating func add(_ next: Findings) {
            moves += next.moves
            told += next.told
            logged += next.logged
            slowestMs = max(slowestMs, next.slowestMs)
        }
    }

    private static let watchesPerDevice = 6
    /// The grace period, a chat server that has to be missed, and stages that have to start again.
    private static let truthMs: Int64 = 60_000
    /// In the calm whoever leaves is noticed at once; this much is a slow machine's.
    private static let noticeMs: Int64 = 15_000

    private unowned let run: ChaosRun
    private let devices: [ChaosDevice]
    private let visitors: [ChaosDevice]
    private let users: [UserID]
    private let startMs: Int64
    private(set) var findings = Findings()

    /// - Parameter visitors: of the devices, those that come and go.
    init(_ run: ChaosRun, devices: [ChaosDevice], visitors: [ChaosDevice]) {
        self.run = run
        self.devices = devices
        self.visitors = visitors
        users = Set(visitors.map(\.user)).sorted()
        startMs = run.loop.nowMs
        for device in devices {
            for user in users.shuffled(using: &run.generator).prefix(Self.watchesPerDevice) { device.watch(user) }
        }
    }

    func start() {
        run.loop.schedule(afterMs: .random(in: 20...150, using: &run.generator)) { [unowned self] in
            guard run.isDriving else { return }
            if let visitor = visitors.randomElement(using: &run.generator) { move(visitor) }
            if let device = devices.randomElement(using: &run.generator),
                let old = device.watches.sorted().randomElement(using: &run.generator),
                let new = users.randomElement(using: &run.generator), !device.watches.contains(new)
            {
                device.unwatch(old)
                device.watch(new)
            }
            start()
        }
    }

    private func move(_ visitor: ChaosDevice) {
        findings.moves += 1
        if visitor.isHere { visitor.leave() } else { visitor.comeBack() }
    }

    /// The storm is over and some are away.
    func settle(_ log: ChaosLogReader) throws {
        try awaitTruth(log) { [unowned self] _ in startMs...max(startMs, run.loop.nowMs) }
        // Whoever was away is online again only when nothing is down any more: what comes now is not the storm's.
        for visitor in visitors where !visitor.isHere { move(visitor) }
        try awaitTruth(log) { $0...$0 }
        for visitor in visitors where Bool.random(using: &run.generator) { move(visitor) }
        // Clocks are read once a turn of a loop, so that they may seem to differ a little.
        try awaitTruth(log) { leftMs in leftMs - 1000...leftMs + Self.noticeMs }
        for visitor in visitors where !visitor.isHere { move(visitor) }
    }

    /// Waits until all that is said of presence is true, and reports what does not become so.
    ///
    /// - Parameter lastSeenMs: when somebody may have been seen last who is not here, and left then.
    private func awaitTruth(
        _ log: ChaosLogReader, lastSeenMs: (_ leftMs: Int64) -> ClosedRange<Int64>
    ) throws {
        let sinceMs = run.loop.nowMs
        while true {
            _ = run.wait(upToMs: 200) { false }
            let isLate = run.loop.nowMs - sinceMs > Self.truthMs
            var reckoning = PresenceReckoning(truth(lastSeenMs))
            let here = devices.filter(\.isHere)
            guard isLate || here.allSatisfy(\.isReady) else { continue }
            for device in here { reckoning.check(toldTo: device.user, watching: device.watches, device.told) }
            // The log is read only when it is all that may be wrong.
            if reckoning.violations.isEmpty || isLate { reckoning.check(log: try log.readPresence()) }
            guard reckoning.violations.isEmpty || isLate else { continue }
            for violation in reckoning.violations { run.violate(violation) }
            findings.told += reckoning.told
            findings.logged += reckoning.logged
            findings.slowestMs = max(findings.slowestMs, Int(run.loop.nowMs - sinceMs))
            return
        }
    }

    /// Of everybody, who come and go or not.
    private func truth(_ lastSeenMs: (_ leftMs: Int64) -> ClosedRange<Int64>) -> [UserID: PresenceReckoning.Truth] {
        Dictionary(grouping: devices, by: \.user).mapValues { devices in
            let isHere = devices.contains(where: \.isHere)
            return PresenceReckoning.Truth(
                isHere: isHere,
                lastSeenMs: isHere ? startMs...run.loop.nowMs : lastSeenMs(devices.map(\.leftMs).max() ?? 0))
        }
    }
}
