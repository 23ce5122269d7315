import Ingest
import PushLink
import Testing
import Wire

/// A device's partition gets another owner while what the device missed is on its way.
@Suite(.serialized) struct OwnerChangeTests {
    private let user = UserID.random()

    private func at(_ offset: Int64) -> Cursor { Cursor(offset: offset, timestamp: 1_000 + offset) }
    private func message(_ number: Int64) -> (offset: Int64, text: String) {
        (number, #"{"type":"message","seq":\#(number)}"#)
    }

    /// A device that missed what follows 50, whose owner `old` was asked for it, and then `new`.
    private func handOver(_ bench: Bench) throws -> (device: Device, old: Worker, new: Worker) {
        let old = try bench.worker("old", term: 1)
        old.liveAfter = at(100)
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"\#(at(50).text)"}"#)
        try bench.wait("the first owner is asked") { old.fills.count == 1 }
        let new = Worker("new", term: 2, partitionCount: 4, bench.loop)
        new.liveAfter = at(120)
        new.connect(port: bench.server.pushPorts[0])
        try bench.wait("the next owner is asked") { new.fills.count == 1 }
        #expect(new.fills[0].after == at(50) && new.fills[0].through == 120)
        return (device, old, new)
    }

    /// What the former owner has sent is through when a batch of its that came behind has been acknowledged.
    private func settle(_ old: Worker, _ bench: Bench) throws {
        old.push(message(101).text, offset: 101, to: [user])
        try bench.wait("the former owner's batch is acknowledged") { old.acknowledged == 1 }
    }

    private func finish(_ device: Device, _ new: Worker, _ bench: Bench) throws {
        #expect(device.frames("message").isEmpty && device.frames("caught_up").isEmpty)
        new.page(new.fills[0], [message(60), message(110)], upTo: at(120), isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(device.frames("message") == [message(60).text, message(110).text])
        new.push(message(121).text, offset: 121, to: [user])
        try bench.wait("the next message") { device.frames("message").count == 3 }
    }

    @Test func `a page of the former owner, come late, does not end the fill of the present one`() throws {
        let bench = try Bench()
        let (device, old, new) = try handOver(bench)
        old.page(old.fills[0], [message(60)], upTo: at(100), isLast: true)
        try settle(old, bench)
        try finish(device, new, bench)
    }

    @Test func `a refusal of the former owner, come late, does not silence the session`() throws {
        let bench = try Bench()
        let (device, old, new) = try handOver(bench)
        let fill = old.fills[0]
        old.send(.cannotFill(request: fill.request, session: fill.session, .unknownSession, windowStart: .start))
        try settle(old, bench)
        try finish(device, new, bench)
    }

    @Test func `a session that its owner does not know is named to it again`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        worker.liveAfter = at(100)
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"\#(at(50).text)"}"#)
        try bench.wait("a fill is asked for") { worker.fills.count == 1 }
        let fill = worker.fills[0]
        worker.send(.cannotFill(request: fill.request, session: fill.session, .unknownSession, windowStart: .start))
        try bench.wait("it is asked for again") { worker.fills.count == 2 }
        #expect(worker.fills[1].after == at(50))
        worker.page(worker.fills[1], [message(60)], upTo: at(100), isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
    }
}
