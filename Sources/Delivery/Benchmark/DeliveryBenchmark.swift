import PushLink
import Runtime
import System
import Wire

/// What one worker does on one core, with the log and the chat servers in memory: records as the join writes them go in,
/// frames for the links come out. What the chat servers do with the frames is not timed.
public struct DeliveryBenchmark {
    public struct Figure: Sendable {
        public let name: String
        public let value: Double
        public let unit: String
    }

    public let sessions: Int
    public let seconds: Double
    private static let partitionCount: Int32 = 16
    /// As many records as a poll brings.
    private static let turnRecords = 500
    private let clock = SystemClock()

    public init(sessions: Int = 100_000, seconds: Double = 3) {
        self.sessions = sessions
        self.seconds = seconds
    }

    public func run() -> [Figure] {
        // First, while no memory of another part is there to be used again.
        var figures = register()
        for (name, users, group, instances) in [
            ("10 groups × 100, 1 chat server", 1_000, 100, 1), ("10 groups × 100, 4 chat servers", 1_000, 100, 4),
            ("1,000 groups × 100, 4 chat servers", 100_000, 100, 4), ("500 pairs, 1 chat server", 1_000, 2, 1),
        ] {
            figures += route(name, users: users, group: group, instances: instances)
        }
        figures += latency()
        figures += presenceStorm()
        figures += fill()
        return figures
    }

    // MARK: - Routing

    private func route(_ name: String, users: Int, group: Int, instances: Int) -> [Figure] {
        let stand = Stand(instances: instances, partitionCount: Self.partitionCount)
        stand.open(users: users)
        let messages = Self.messages(users: users, group: group)
        var busyNs: UInt64 = 0
        var turns = Latencies()
        let before = stand.worker.counts
        var next = 0
        while Double(busyNs) < seconds * 1e9 {
            let start = clock.monotonicNs
            for _ in 0..<Self.turnRecords {
                let record = messages[next % messages.count]
                next += 1
                stand.take(record)
            }
            let output = stand.takeOutput()
            let routed = clock.monotonicNs
            let answers = stand.acknowledge(output)
            let back = clock.monotonicNs
            stand.receive(answers)
            let end = clock.monotonicNs
            busyNs += routed - start + end - back
            turns.record(routed - start)
        }
        let deliveries = Double(stand.worker.counts.deliveries - before.deliveries)
        let records = Double(stand.worker.counts.records - before.records)
        let busy = Double(busyNs) / 1e9
        return [
            Figure(name: "\(name): deliveries routed", value: deliveries / busy, unit: "/s"),
            Figure(name: "\(name): records", value: records / busy, unit: "/s"),
            Figure(
                name: "\(name): time a record, median", value: Double(turns.quantile(0.5)) / Double(Self.turnRecords),
                unit: "ns"),
        ]
    }

    // MARK: - Latency

    /// What the worker adds to a record's way, from being read to the bytes that the links are to write: of a record that
    /// comes alone, and of one that comes with as many others as a poll brings.
    private func latency() -> [Figure] {
        let name = "10 groups × 100, 1 chat server"
        let stand = Stand(instances: 1, partitionCount: Self.partitionCount)
        stand.open(users: 1_000)
        let messages = Self.messages(users: 1_000, group: 100)
        var next = 0
        func measure(_ records: Int, turns: Int) -> Latencies {
            var latencies = Latencies()
            for _ in 0..<turns {
                let start = clock.monotonicNs
                for _ in 0..<records {
                    stand.take(messages[next % messages.count])
                    next += 1
                }
                let output = stand.takeOutput()
                latencies.record(clock.monotonicNs - start)
                stand.receive(stand.acknowledge(output))
            }
            return latencies
        }
        let alone = measure(1, turns: 20_000)
        let full = measure(Self.turnRecords, turns: 200)
        return [
            Figure(name: "\(name): added latency, median", value: Double(alone.quantile(0.5)) / 1_000, unit: "µs"),
            Figure(name: "\(name): added latency, p99", value: Double(alone.quantile(0.99)) / 1_000, unit: "µs"),
            Figure(
                name: "\(name): added latency in a turn of \(Self.turnRecords), median",
                value: Double(full.quantile(0.5)) / 1_000, unit: "µs"),
        ]
    }

    /// 100,000 users leave at once, each of them watched, while others go on talking. What a turn takes in which they leave,
    /// or in which some of them become offline, is what their leaving may delay a message by.
    private func presenceStorm() -> [Figure] {
        let (leaving, staying) = (100_000, 1_000)
        let stand = Stand(instances: 1, partitionCount: Self.partitionCount)
        stand.open(users: leaving + staying)
        let messages = Self.messages(from: leaving, users: staying, group: 100)
        var next = 0
        func turn(_ input: [UInt8] = []) -> UInt64 {
            stand.nowMs += 10
            let start = clock.monotonicNs
            if !input.isEmpty { _ = stand.worker.linkReceived(0, input.span, nowMs: stand.nowMs) }
            stand.worker.tick(nowMs: stand.nowMs)
            for _ in 0..<16 {
                stand.take(messages[next % messages.count])
                next += 1
            }
            let output = stand.takeOutput()
            let took = clock.monotonicNs - start
            _ = stand.worker.takePresence()
            stand.receive(stand.acknowledge(output))
            return took
        }
        func changes() -> Int { stand.worker.counts.presenceChanges }
        while changes() < leaving + staying { _ = turn() }
        stand.watch(users: leaving)
        var quiet = Latencies()
        for _ in 0..<1_000 { quiet.record(turn()) }
        var storm = Latencies()
        for frame in stand.leaving(users: leaving) { storm.record(turn(frame)) }
        while changes() < 2 * leaving + staying {
            let before = changes()
            let took = turn()
            if changes() > before { storm.record(took) }
        }
        return [
            Figure(
                name: "16 records, nobody leaving: added latency, median", value: Double(quiet.quantile(0.5)) / 1_000,
                unit: "µs"),
            Figure(
                name: "16 records while 100,000 users leave: added latency, median",
                value: Double(storm.quantile(0.5)) / 1_000, unit: "µs"),
            Figure(
                name: "16 records while 100,000 users leave: added latency, p99",
                value: Double(storm.quantile(0.99)) / 1_000, unit: "µs"),
        ]
    }

    /// One record for each partition with recipients, 200 bytes of text.
    private static func messages(from start: Int = 0, users: Int, group: Int) -> [Record] {
        let text = String(repeating: "x", count: 200)
        var records: [Record] = []
        for first in stride(from: start, to: start + users, by: group) {
            let members = (first..<first + group).map { user($0) }
            let event =
                #"{"type":"message","chat":"\#(chat(first))","seq":123456,"id":"\#(members[0])","from":"\#(members[0])","#
                + #""ts":1763000000000,"kind":"text","text":"\#(text)"}"#
            for (partition, here) in Dictionary(grouping: members, by: { $0.partition(count: partitionCount) }) {
                let list = here.map { "\"\($0)\"" }.joined(separator: ",")
                records.append(Record(partition: partition, value: Array(#"{"to":[\#(list)],"event":\#(event)}"#.utf8)))
            }
        }
        return records
    }

    // MARK: - Sessions

    private func register() -> [Figure] {
        let stand = Stand(instances: 1, partitionCount: Self.partitionCount)
        let frames = stand.registrations(users: sessions)
        let residentBefore = Double(CurrentProcess.residentBytes)
        let start = clock.monotonicNs
        for bytes in frames { _ = stand.worker.linkReceived(0, bytes.span, nowMs: stand.nowMs) }
        let end = clock.monotonicNs
        let resident = Double(CurrentProcess.residentBytes) - residentBefore
        precondition(stand.worker.sessionCount == sessions)
        return [
            Figure(name: "\(sessions) sessions registered", value: Double(end - start) / 1e6, unit: "ms"),
            Figure(name: "memory a session", value: resident / Double(sessions), unit: "bytes"),
        ]
    }

    // MARK: - Fills

    /// Everybody comes back at once and has missed 10 messages.
    private func fill() -> [Figure] {
        let users = 20_000
        let stand = Stand(instances: 1, partitionCount: Self.partitionCount)
        stand.open(users: users)
        for record in (0..<10).flatMap({ _ in Self.messages(users: users, group: 100) }) { stand.take(record) }
        stand.receive(stand.acknowledge(stand.takeOutput()))
        let requests = stand.fills(users: users)
        let start = clock.monotonicNs
        _ = stand.worker.linkReceived(0, requests.span, nowMs: stand.nowMs)
        var bytes = 0
        while stand.worker.hasFills(0) {
            stand.worker.serveFills(0, room: 1 << 20)
            bytes += stand.worker.takeOutput(0, nowMs: stand.nowMs).count
        }
        let ms = Double(clock.monotonicNs - start) / 1e6
        precondition(stand.worker.counts.fillsServed == users)
        return [
            Figure(name: "20,000 devices filled with 10 messages each", value: ms, unit: "ms"),
            Figure(name: "fill rate", value: Double(bytes) / ms / 1_000, unit: "MB/s"),
        ]
    }

    static func user(_ number: Int) -> UserID {
        var generator = Numbers(UInt64(number))
        return UserID.random(using: &generator)
    }

    static func chat(_ number: Int) -> ChatID {
        var generator = Numbers(UInt64(number) << 32)
        return ChatID.random(using: &generator)
    }
}

private struct Latencies {
    private var values: [UInt64] = []
    mutating func record(_ value: UInt64) { values.append(value) }

    func quantile(_ share: Double) -> UInt64 {
        values.isEmpty ? 0 : values.sorted()[min(values.count - 1, Int(Double(values.count) * share))]
    }
}

struct Record {
    let partition: Int32
    let value: [UInt8]
}

private struct Numbers: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed &+ 0x9e37_79b9_7f4a_7c15 }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}
