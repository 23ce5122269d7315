import TestSupport
import Testing
import Wire

@testable import Ingest

/// A pipeline that carries so many messages a second, and what comes of it when more are sent.
private struct Model {
    var admission: MessageAdmission
    private var nowUs: Int64 = 1_000_000_000
    private var log: [(seq: Int64, atUs: Int64)] = []
    private var taken = 0
    private var capacity: Double
    private var work = 0.0
    var isStanding = false
    private(set) var admitted = 0
    private(set) var refused = 0
    private(set) var delaysMs: [Int64] = []

    init(capacity: Double) {
        admission = MessageAdmission(partitions: 1)
        self.capacity = capacity
    }

    var nowMs: Int64 { nowUs / 1000 }

    /// Runs for so long, with so many messages a second from outside.
    mutating func run(ms: Int, rate: Double) {
        var due = 0.0
        for _ in 0..<ms {
            nowUs += 1000
            due += rate / 1000
            while due >= 1 {
                due -= 1
                offer()
            }
            // What has not been used of a moment is not there in the next.
            work = taken < log.count && !isStanding ? work + capacity / 1000 : 0
            while work >= 1, taken < log.count {
                work -= 1
                let message = log[taken]
                taken += 1
                admission.cameBack(0, seq: message.seq, nowMs: nowMs)
                delaysMs.append((nowUs - message.atUs) / 1000)
            }
        }
    }

    private mutating func offer() {
        guard admission.admits(to: 0, nowMs: nowMs) else {
            refused += 1
            return
        }
        admitted += 1
        admission.sent(to: 0)
        admission.answered(0, seq: Int64(log.count), sentMs: nowMs)
        log.append((Int64(log.count), nowUs))
    }

    mutating func forget() { (admitted, refused, delaysMs) = (0, 0, []) }

    func quantile(_ share: Double) -> Int64 {
        let sorted = delaysMs.sorted()
        return sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
    }
}

@Suite struct MessageAdmissionTests {
    @Test(arguments: [40.0, 250, 2000], [2.0, 10])
    func `at many times the capacity nearly all of it is used, and what is let in arrives in good time`(
        capacity: Double, times: Double
    ) {
        var model = Model(capacity: capacity)
        model.run(ms: 1000, rate: capacity / 4)
        #expect(model.refused == 0)
        model.forget()
        model.run(ms: 10_000, rate: capacity * times)
        #expect(Double(model.delaysMs.count) >= capacity * 10 * 0.95)
        #expect(model.quantile(0.99) <= 1000)
        #expect(model.quantile(0.5) <= 500)
        #expect(model.refused > 0)
        // And all is well again at once.
        model.run(ms: 1000, rate: 0)
        model.forget()
        model.run(ms: 1000, rate: capacity / 2)
        #expect(model.refused == 0)
    }

    @Test func `a burst into an idle pipeline is let in`() {
        var model = Model(capacity: 20_000)
        model.run(ms: 5000, rate: 10)
        model.forget()
        model.run(ms: 20, rate: 200_000)
        model.run(ms: 1000, rate: 10)
        #expect(model.refused == 0)
    }

    @Test func `a standstill fills the log and refuses nobody, then or while it is worked off`() {
        var model = Model(capacity: 2000)
        model.run(ms: 2000, rate: 500)
        model.isStanding = true
        model.run(ms: 10_000, rate: 500)
        model.isStanding = false
        model.run(ms: 10_000, rate: 500)
        #expect(model.refused == 0)
        #expect(model.admission.underWay < 10)
        // What the standstill has left is no licence for later.
        model.forget()
        model.run(ms: 10_000, rate: 20_000)
        #expect(model.quantile(0.99) <= 1000)
    }

    @Test func `a partition that waits does not hold up the others`() {
        var admission = MessageAdmission(partitions: 2)
        for number in 0..<10_000 as Range<Int64> {
            for partition in 0..<2 as Range<Int32> where admission.admits(to: partition, nowMs: number) {
                admission.sent(to: partition)
                admission.answered(partition, seq: number, sentMs: number)
            }
            admission.cameBack(1, seq: number, nowMs: number)
            let isAdmitted = admission.admits(to: 1, nowMs: number)
            #expect(isAdmitted)
        }
    }

    @Test func `what never comes back is forgotten, and what failed was never under way`() {
        var admission = MessageAdmission(partitions: 1)
        admission.sent(to: 0)
        admission.failed(0)
        #expect(admission.underWay == 0)
        admission.sent(to: 0)
        admission.answered(0, seq: 7, sentMs: 0)
        // A repeat is told the place that it has had for long.
        admission.sent(to: 0)
        admission.answered(0, seq: 3, sentMs: 1)
        #expect(admission.underWay == 1)
        _ = admission.admits(to: 0, nowMs: 100_000)
        #expect(admission.underWay == 0)
    }

    @Test func `an event names its chat and place, and whatever else it may be is passed over`() throws {
        let chat = ChatID.random()
        let event = #"{"type":"message","chat":"\#(chat)","seq":12345,"id":"…"}"#
        let place = try #require(find(event))
        #expect(place.chat == chat)
        #expect(place.seq == 12345)
        for length in 0..<(event.utf8.count - 20) where length <= 70 {
            #expect(find(String(event.prefix(length))) == nil)
        }
        for other in [
            #"{"type":"member","chat":"\#(chat)","seq":1}"#, #"{"type":"message","chat":"\#(chat)","seq":-1}"#,
            #"{"type":"message","chat":"\#(String(repeating: "x", count: 36))","seq":1}"#,
        ] { #expect(find(other) == nil) }
    }

    @Test func `the join writes events as they are read here`() throws {
        let text =
            #"{"id":"\#(MessageID.random())","chat":"\#(ChatID.random())","from":"\#(UserID.random())","device":"\#(DeviceID.random())","kind":"text","text":"hello"}"#
        let bytes = Array(text.utf8)
        let message = try IncomingMessage(decoding: bytes.span)
        var json = JSONWriter()
        message.writeEvent(seq: 99, ts: 1, to: &json, source: bytes.span)
        let place = try #require(find(String(decoding: json.bytes, as: UTF8.self)))
        #expect(place.chat == message.chat)
        #expect(place.seq == 99)
    }

    private func find(_ event: String) -> (chat: ChatID, seq: Int64)? {
        let bytes = Array(event.utf8)
        return MessageAdmission.place(of: bytes.span)
    }
}
