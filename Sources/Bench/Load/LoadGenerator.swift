import Runtime
import System
import Wire

/// Why a run could not be made.
public struct BenchError: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// Makes one scenario's load over real sockets, on one thread, and books what comes of it.
final class LoadGenerator {
    let loop: EventLoop
    private let scenario: Scenario
    private let target: LoadTarget
    private let population: Population
    private var ledger: Ledger
    private var devices: [LoadDevice] = []
    private var ready = 0
    private var firstFailure: String?
    private var refusals: [String: Int] = [:]
    private var nextSender: [Int]
    private var isSending = false
    private let pace: Ticker
    private var paceWatch: Registration?
    /// Messages whose time has come.
    private var scheduledCount = 0
    private var message = JSONWriter()
    private let text: String
    private let clock = SystemClock()

    init(_ scenario: Scenario, target: LoadTarget, population: Population) throws {
        self.scenario = scenario
        self.target = target
        self.population = population
        loop = try EventLoop()
        pace = try Ticker()
        ledger = Ledger(
            runID: .random(in: 0 ... .max), chats: scenario.chats, membersPerChat: scenario.membersPerChat)
        nextSender = Array(repeating: 0, count: scenario.chats)
        text = String(repeating: "x", count: scenario.textBytes)
    }

    // MARK: Running

    func run(meter: ProcessMeter) throws -> RunReport {
        try connectAll()
        defer { for device in devices { device.close() } }
        try probe()
        let warmUpEnd = try startSending()
        runLoop(untilNs: warmUpEnd)
        ledger.measuredFrom = ledger.sent
        let before = (deliveries: ledger.delivered, sent: ledger.sent, cpu: meter.sample(), ns: clock.monotonicNs)
        runLoop(untilNs: before.ns + UInt64(scenario.durationMs) * 1_000_000)
        let after = (deliveries: ledger.delivered, sent: ledger.sent, cpu: meter.sample(), ns: clock.monotonicNs)
        isSending = false
        paceWatch?.cancel()
        settle()
        let seconds = Double(after.ns - before.ns) / 1e9
        return RunReport(
            scenario: scenario, seconds: seconds, sent: after.sent - before.sent,
            deliveries: after.deliveries - before.deliveries, cpuSeconds: meter.difference(before.cpu, after.cpu),
            endToEnd: ledger.endToEnd.snapshot(), acknowledgement: ledger.acknowledgement.snapshot(),
            lost: max(0, ledger.expected - ledger.delivered),
            repeats: ledger.repeats, outOfOrder: ledger.outOfOrder, refused: refusals,
            unacknowledged: ledger.sent - ledger.acknowledgedTotal - ledger.refused, failure: firstFailure)
    }

    private func runLoop(untilNs deadline: UInt64) {
        let timer = loop.schedule(afterMs: Int((deadline - min(deadline, clock.monotonicNs)) / 1_000_000)) { [loop] in
            loop.stop()
        }
        loop.run()
        timer.cancel()
    }

    private func wait(upToMs: Int, for condition: () -> Bool) -> Bool {
        let deadline = clock.monotonicNs + UInt64(upToMs) * 1_000_000
        while !condition() {
            if clock.monotonicNs > deadline { return false }
            loop.runOnce(timeoutMs: 10)
        }
        return true
    }

    private func connectAll() throws {
        for chat in 0..<scenario.chats {
            for member in 0..<scenario.membersPerChat {
                let user = population.user(chat: chat, member: member)
                let device = LoadDevice(self, user: user, chat: chat)
                devices.append(device)
                device.connect(to: target.address, token: target.token(for: user), device: DeviceID.random())
                // A bounded number of handshakes at once, as a population that arrives would.
                if devices.count - ready > 256 {
                    _ = wait(upToMs: 30_000) { devices.count - ready <= 128 || firstFailure != nil }
                }
                if let firstFailure { throw BenchError("a device failed: \(firstFailure)") }
            }
        }
        guard wait(upToMs: 60_000, for: { ready == devices.count || firstFailure != nil }), firstFailure == nil else {
            throw BenchError(firstFailure ?? "only \(ready) of \(devices.count) devices were ready after 60 s")
        }
    }

    /// The memberships may have been made a moment ago: sends until each chat has taken one message, so that the run
    /// measures the pipeline and not the arrival of its tables.
    private func probe() throws {
        for chat in 0..<scenario.chats {
            let before = ledger.acknowledgedByChat[chat]
            let deadline = clock.monotonicNs + 60_000_000_000
            while ledger.acknowledgedByChat[chat] == before {
                guard clock.monotonicNs < deadline else {
                    throw BenchError("chat \(chat) takes no message: \(refusals)")
                }
                send(chat: chat, scheduledNs: clock.monotonicNs)
                let refused = ledger.refused
                _ = wait(upToMs: 5000) { ledger.acknowledgedByChat[chat] > before || ledger.refused > refused }
                if ledger.refused > refused { _ = wait(upToMs: 50) { false } }
            }
        }
        _ = wait(upToMs: 10_000) { ledger.delivered >= ledger.expected }
        refusals = [:]
    }

    private func startSending() throws -> UInt64 {
        isSending = true
        let start = clock.monotonicNs
        switch scenario.pace {
        case .rate(let perSecond):
            scheduledCount = 0
            paceWatch = try loop.watch(pace.descriptor) { [unowned self] _ in
                pace.clear()
                sendDue(startNs: start, perSecond: perSecond)
            }
            sendDue(startNs: start, perSecond: perSecond)
        case .window(let size):
            for chat in 0..<scenario.chats {
                for _ in 0..<size { send(chat: chat, scheduledNs: start) }
            }
        }
        return start + UInt64(scenario.warmUpMs) * 1_000_000
    }

    /// Sends what is due, each message with the time at which it was, and sleeps until the next is. A loop's own timers
    /// would be late by a millisecond, and send several at once.
    private func sendDue(startNs: UInt64, perSecond: Double) {
        guard isSending else { return }
        var next = startNs
        while true {
            next = startNs + UInt64(Double(scheduledCount) / perSecond * 1e9)
            guard next <= clock.monotonicNs else { break }
            send(chat: scheduledCount % scenario.chats, scheduledNs: next)
            scheduledCount += 1
        }
        pace.set(atNs: next)
    }

    private func send(chat: Int, scheduledNs: UInt64) {
        let member = nextSender[chat] % scenario.sendersPerChat
        nextSender[chat] += 1
        let id = ledger.send(chat: chat, scheduledNs: scheduledNs)
        message.removeAll()
        message.object {
            $0.field("type", "send")
            $0.field("id", id)
            $0.field("chat", population.chat(chat))
            $0.field("text", text)
        }
        devices[chat * scenario.membersPerChat + member].send(message.bytes)
    }

    /// Waits until everything that the log has taken has arrived everywhere.
    private func settle() {
        _ = wait(upToMs: 10_000) { ledger.sent == ledger.acknowledgedTotal + ledger.refused }
        _ = wait(upToMs: 15_000) { ledger.delivered >= ledger.expected }
        // Whatever is repeated comes after.
        _ = wait(upToMs: 300) { false }
    }

    // MARK: From the devices

    func deviceReady() { ready += 1 }

    func deviceClosed(_ device: LoadDevice) {
        if let failure = device.failure, firstFailure == nil { firstFailure = failure }
    }

    func acknowledged(_ id: MessageID) {
        guard let number = ledger.number(of: id) else { return }
        ledger.acknowledge(number, nowNs: clock.monotonicNs)
        sendNext(after: number)
    }

    func refused(_ id: MessageID?, code: String, retryAfterMs: Int64?) {
        refusals[code, default: 0] += 1
        ledger.refuse()
        guard let id, let number = ledger.number(of: id), isSending, case .window = scenario.pace else { return }
        let chat = ledger.chat(of: number)
        loop.schedule(afterMs: Int(retryAfterMs ?? 100)) { [unowned self] in
            if isSending { send(chat: chat, scheduledNs: clock.monotonicNs) }
        }
    }

    func delivered(_ id: MessageID, seq: Int64, after lastSeq: Int64) -> Int64 {
        defer { if let number = ledger.number(of: id) { sendNext(after: number) } }
        return ledger.deliver(id, seq: seq, after: lastSeq, nowNs: loop.monotonicNs)
    }

    /// A message that is done makes room for another of its chat, when there is a window and no rate.
    private func sendNext(after number: Int) {
        guard isSending, case .window = scenario.pace, ledger.isDone(number) else { return }
        send(chat: ledger.chat(of: number), scheduledNs: clock.monotonicNs)
    }
}
