import Ingest
import PushLink
import Testing
import Wire

/// A device that missed what Delivery still has.
@Suite(.serialized) struct FillTests {
    private let user = UserID.random()

    private func at(_ offset: Int64) -> Cursor { Cursor(offset: offset, timestamp: 1_000 + offset) }
    private func message(_ number: Int64) -> (offset: Int64, text: String) {
        (number, #"{"type":"message","seq":\#(number)}"#)
    }

    @Test func `what comes while a device is filled closes nobody: what is too much to keep is filled next`() throws {
        let bench = try Bench { $0.limits.heldBytesMax = 1_000 }
        let worker = try bench.worker()
        worker.liveAfter = at(100)
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"\#(at(50).text)"}"#)
        try bench.wait("a fill is asked for") { worker.fills.count == 1 }
        for offset in 101...200 { worker.push(message(Int64(offset)).text, offset: Int64(offset), to: [user]) }
        try bench.wait("all have been taken") { worker.acknowledged == 100 }
        worker.liveAfter = at(200)
        worker.page(worker.fills[0], [message(60)], upTo: at(100), isLast: true)
        try bench.wait("the rest is asked for") { worker.fills.count == 2 }
        #expect(worker.fills[1].after == at(100) && worker.fills[1].through == 200)
        worker.page(worker.fills[1], (101...200).map { message(Int64($0)) }, upTo: at(200), isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(device.frames("message") == ([60] + Array(101...200)).map { message($0).text })
    }

    @Test func `a page of many small events is one piece of the queue`() throws {
        let bench = try Bench { $0.limits.sessionQueueFragments = 100 }
        let worker = try bench.worker()
        worker.liveAfter = at(2_000)
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"\#(at(50).text)"}"#)
        try bench.wait("a fill is asked for") { worker.fills.count == 1 }
        for offset in 2_001...2_500 { worker.push(message(Int64(offset)).text, offset: Int64(offset), to: [user]) }
        try bench.wait("all have been taken") { worker.acknowledged == 500 }
        worker.page(worker.fills[0], (51...2_000).map { message(Int64($0)) }, upTo: at(2_000), isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 || device.isClosed }
        #expect(device.frames("message") == (51...2_500).map { message(Int64($0)).text })
    }
}
