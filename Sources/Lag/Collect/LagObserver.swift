import KafkaClient
public import Runtime
public import System

/// Looks at the cluster and at the database on a thread each, and answers on its loop by a deadline: with what is known
/// then, and what is missing. So neither a frozen database nor a call of a library that outlives its timeout holds up
/// whoever asked, and a loop that serves or draws goes on meanwhile.
///
/// On the loop's thread only.
public final class LagObserver {
    public struct Parts: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }

        public static let cluster = Parts(rawValue: 1)
        public static let slots = Parts(rawValue: 2)
    }

    private enum Report: Sendable {
        case progress(LagSample, next: String)
        case cluster(LagSample)
        case slots(SlotReader.Answer)
    }

    private let query: LagQuery
    /// What its samples are to be judged by.
    public var thresholds: LagThresholds { query.thresholds }
    private let loop: EventLoop
    private let clock: any Clock
    private let collector: Worker<LagCollector>
    private let slotReader: Worker<SlotReader>?
    private var reports: Mailbox<Report>?

    /// Parts whose thread has not answered yet, be it to an earlier look.
    private var busy: Parts = []
    private var look: Look?

    private struct Look {
        let withinMs: Int
        var awaited: Parts
        var cluster: LagSample?
        var slots: SlotReader.Answer?
        /// What the cluster's thread is at.
        var doing = "connecting"
        let timer: Timer
        let answer: (LagSample) -> Void
    }

    public init(_ query: LagQuery, on loop: EventLoop, clock: any Clock) throws {
        self.query = query
        self.loop = loop
        self.clock = clock
        collector = try Worker(name: "lag-kafka") { () throws(KafkaError) in try LagCollector(query, clock: clock) }
        if let url = query.postgres {
            slotReader = try Worker(name: "lag-postgres") { SlotReader(url, query) }
        } else {
            slotReader = nil
        }
        // Many progress reports a look, two looks at a time at most.
        reports = Mailbox(on: loop, capacity: 64) { [unowned self] batch in
            for report in batch { take(report) }
        }
    }

    /// Ends the threads; one that is frozen is left to end with the process.
    public func close() {
        look?.timer.cancel()
        look = nil
        reports?.close()
        collector.end(withinMs: 500) { $0.close() }
        slotReader?.end(withinMs: 50) { _ in }
    }

    /// Looks at these parts and calls `answer` once, within the time. One look at a time. A part whose thread is still at an
    /// earlier look is not asked again: what it finds then is the answer.
    public func look(at parts: Parts, withinMs: Int, _ answer: @escaping (LagSample) -> Void) {
        precondition(look == nil, "one look at a time")
        var awaited = parts
        if slotReader == nil { awaited.remove(.slots) }
        let timer = loop.schedule(afterMs: awaited.isEmpty ? 0 : withinMs) { [unowned self] in finish() }
        look = Look(withinMs: withinMs, awaited: awaited, timer: timer, answer: answer)
        guard let reports else { return }
        if awaited.contains(.cluster), !busy.contains(.cluster) {
            busy.insert(.cluster)
            // It names what is missing better than the deadline can, so it is given a little less.
            let collectMs = max(withinMs * 9 / 10, withinMs - 200)
            collector.run { collector in
                let sample = collector.sample(withinMs: collectMs) { soFar, next in
                    _ = reports.post(.progress(soFar, next: next))
                }
                _ = reports.post(.cluster(sample))
            }
        }
        if awaited.contains(.slots), !busy.contains(.slots) {
            busy.insert(.slots)
            slotReader?.run { _ = reports.post(.slots($0.read())) }
        }
    }

    private func take(_ report: Report) {
        switch report {
        case .progress(let soFar, let next):
            look?.cluster = soFar
            look?.doing = next
        case .cluster(let sample):
            busy.remove(.cluster)
            look?.cluster = sample
            settle(.cluster)
        case .slots(let answer):
            busy.remove(.slots)
            look?.slots = answer
            settle(.slots)
        }
    }

    private func settle(_ part: Parts) {
        look?.awaited.remove(part)
        if look?.awaited.isEmpty == true { finish() }
    }

    private func finish() {
        guard let look else { return }
        self.look = nil
        look.timer.cancel()
        var sample = look.cluster ?? LagSample(takenMs: clock.wallMs)
        if look.awaited.contains(.cluster) {
            let line = "no answer within \(look.withinMs) ms while \(look.doing)"
            if sample.positions.isEmpty { sample.clusterError = line } else { sample.missing.append(line) }
        }
        if look.awaited.contains(.slots) {
            sample.missing.append("slots: Postgres did not answer within \(look.withinMs) ms")
        }
        if let slots = look.slots {
            sample.slots = slots.slots
            sample.missing += slots.missing
        }
        look.answer(sample)
    }
}

/// Something that blocks, on a thread of its own that does what it is told, one after another.
private final class Worker<Value> {
    private let thread: LoopThread
    private let value: LoopBound<Value>

    init<Failure: Error>(name: String, _ make: @escaping @Sendable () throws(Failure) -> Value) throws {
        let made = Handover<LoopBound<Value>>()
        thread = try LoopThread.start(name: name) { loop throws(Failure) in
            made.put(LoopBound(try make(), on: loop))
        }
        value = made.take()
    }

    func run(_ body: @escaping @Sendable (Value) -> Void) {
        thread.remote.execute { [value] loop in body(value.value(on: loop)) }
    }

    func end(withinMs: Int, _ last: @escaping @Sendable (Value) -> Void) {
        let ended = Handover<Bool>()
        run {
            last($0)
            ended.put(true)
        }
        thread.stop()
        _ = ended.take(timeoutMs: withinMs)
    }
}
