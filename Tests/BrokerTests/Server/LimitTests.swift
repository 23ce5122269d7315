import Foundation
import KafkaClient
import System
import TestSupport
import Testing
import Wire

@testable import Broker

/// What one client may cost the broker and everyone else.
@Suite struct LimitTests {
    private func makeTopic(_ name: String, _ configs: [String: String]) -> (inout ResponseWriter) -> Void {
        { writer in
            writer.array([name, name].prefix(configs.isEmpty ? 2 : 1)) { writer, name in
                writer.string(name)
                writer.int32(1)
                writer.int16(1)
                writer.arrayCount(0)
                writer.array(configs.sorted { $0.key < $1.key }) { writer, config in
                    writer.string(config.key)
                    writer.nullableString(config.value)
                    writer.noTags()
                }
                writer.noTags()
            }
            writer.int32(1000)
            writer.bool(false)
            writer.noTags()
        }
    }

    @Test func `a refusal that quotes a name as long as a string can be is cut off, and the broker lives`() throws {
        let broker = try TestBroker()
        let peer = try RawClient(port: broker.port)
        let long = String(repeating: "x", count: 32_760)
        for version in [2, 4, 7] as [Int16] {
            #expect(peer.ask(19, version, makeTopic(long, [:])) != nil)
            #expect(peer.ask(19, version, makeTopic("a", [long: "1"])) != nil)
        }
        let cut = "é" + String(repeating: "é", count: 20_000)
        var writer = ResponseWriter(correlationID: 0, flexible: false)
        writer.string(cut)
        #expect(writer.bytes.count == 8 + 2 + 32_766, "a character is not cut in two")
    }

    @Test func `a group whose name no string can hold is refused, and the longest one survives a restart`() throws {
        let broker = try TestBroker()
        try broker.make("t")
        func commit(_ group: [UInt8]) -> [UInt8] {
            var body: [UInt8] = []
            var count = group.count + 1
            while count >= 0x80 {
                body.append(UInt8(count & 0x7f | 0x80))
                count >>= 7
            }
            body.append(UInt8(count))
            // Generation -1, no member; topic "t", partition 0, offset 7, no metadata.
            body += group + [0xff, 0xff, 0xff, 0xff, 1, 0, 2, 2, 0x74, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
            return RawClient.request(8, 8, body + [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])
        }
        for count in [70_000, 40_000, 32_768] {
            let peer = try RawClient(port: broker.port)
            peer.send(commit([UInt8](repeating: 0x67, count: count)))
            #expect(peer.isClosedByPeer(seconds: 10), "\(count)")
        }
        let peer = try RawClient(port: broker.port)
        peer.send(commit([UInt8](repeating: 0x67, count: 32_767)))
        #expect(peer.receiveFrame(seconds: 10)?.suffix(4) == [0, 0, 0, 0])
        broker.stop()
        try broker.start()
        let groups = broker.ask { core in core.groups.offsets.groups.mapValues { $0.values.map(\.offset) } }
        #expect(groups == [String(repeating: "g", count: 32_767): [7]])
    }

    @Test func `a member's id is shorter than a string can be, whatever its client calls itself`() throws {
        let broker = try TestBroker()
        let peer = try RawClient(port: broker.port)
        let answer = try #require(
            peer.ask(11, 3, clientID: String(repeating: "c", count: 32_767)) { writer in
                writer.string("g")
                writer.int32(10_000)
                writer.int32(10_000)
                writer.string("")
                writer.string("consumer")
                writer.array(["range"]) { writer, name in
                    writer.string(name)
                    writer.byteArray([0, 0])
                }
            })
        #expect(answer[4..<6] == [0, 0])
        #expect(answer.count < 2000)
    }

    @Test func `a topic that is named a thousand times is told once`() throws {
        let broker = try TestBroker()
        try broker.make("t", partitions: 100)
        let peer = try RawClient(port: broker.port)
        func metadata(_ times: Int) -> Int? {
            peer.ask(3, 1) { writer in
                writer.array([String](repeating: "t", count: times)) { $0.string($1) }
            }?.count
        }
        #expect(metadata(1000) == metadata(1))
    }

    @Test func `an answer that grows beyond what a client could read is given up, and memory with it`() {
        var writer = ResponseWriter(correlationID: 0, flexible: true)
        let piece = [UInt8](repeating: 1, count: 1 << 20)
        writer.array(0..<1000) { writer, _ in writer.byteArray(piece) }
        #expect(writer.bytes.count < ResponseWriter.bytesMax + 2 << 20)
        #expect(writer.frame() == nil)
    }

    @Test func `behind a fetch that waits, answers do not pile up`() throws {
        let broker = try TestBroker()
        try broker.make("empty")
        try broker.make("full")
        let peer = try RawClient(port: broker.port)
        let value = String(repeating: "x", count: 500_000)
        for _ in 0..<3 { #expect(peer.produce("full", Batches.batch(values: [value]))?.error == 0) }
        let count = 400
        peer.send(RawClient.fetch("empty", from: 0, maxWaitMs: 3000))
        for _ in 0..<count { peer.send(RawClient.fetch("full", from: 0, maxWaitMs: 0)) }
        // The first answer comes with the others behind it; until then 400 MiB would be held.
        var held = 0
        let isTaken = eventually(seconds: 2) {
            held = max(held, broker.ask { $0.held.total } ?? 0)
            return held > 7 << 20
        }
        #expect(isTaken && held < 10 << 20, "\(held)")
        for index in 0...count {
            let frame = try #require(peer.receiveFrame(seconds: 20), "answer \(index)")
            // The first is the empty one.
            #expect((frame.count > 400_000) == (index > 0))
        }
        // What a socket has taken is noticed when somebody asks.
        let isLetGo = eventually {
            broker.ask { core in
                for connection in core.held.connections() { connection.report() }
                return core.held.total
            } == 0
        }
        #expect(isLetGo)
    }

    @Test func `a fetch of a client that has gone does not wait on`() throws {
        let broker = try TestBroker()
        try broker.make("t")
        func waiting() -> Int { broker.ask { $0.partition("t", 0)?.waiters.count ?? -1 } ?? -1 }
        do {
            let peer = try RawClient(port: broker.port)
            peer.send(RawClient.fetch("t", from: 0, maxWaitMs: .max))
            #expect(eventually { waiting() == 1 })
        }
        #expect(eventually { waiting() == 0 })
    }

    @Test func `a fetch of nothing is answered at once, and so is what follows it`() throws {
        let broker = try TestBroker()
        let peer = try RawClient(port: broker.port)
        let answer = peer.ask(1, 4) { writer in
            for field in [-1, .max, 1, 1 << 20] as [Int32] { writer.int32(field) }
            writer.int8(0)
            writer.arrayCount(0)
        }
        #expect(answer == [0, 0, 0, 0, 0, 0, 0, 0])
        #expect(peer.ask(18, 0) != nil)
    }

    @Test func `a fetch that wants more than an answer can hold gets what fits, without waiting`() throws {
        let broker = try TestBroker()
        try broker.make("t")
        let peer = try RawClient(port: broker.port)
        let value = String(repeating: "x", count: 400_000)
        for _ in 0..<4 { _ = peer.produce("t", Batches.batch(values: [value])) }
        let start = ContinuousClock.now
        peer.send(RawClient.fetch("t", from: 0, maxWaitMs: 60_000, minBytes: 8 << 20, maxBytes: 32 << 20))
        #expect(try #require(peer.receiveFrame(seconds: 50)).count > 800_000)
        #expect(ContinuousClock.now - start < .seconds(30))
    }

    @Test func `unfinished requests of many clients are bounded in sum, and others are served`() throws {
        let broker = try TestBroker { $0.heldBytesMax = 8 << 20 }
        var greedy: [RawClient] = []
        let part = [0x01, 0, 0, 0] + [UInt8](repeating: 0, count: 1 << 20)
        for _ in 0..<20 {
            let peer = try RawClient(port: broker.port)
            peer.send(part)
            greedy.append(peer)
        }
        let peer = try RawClient(port: broker.port)
        #expect(peer.ask(18, 0) != nil)
        #expect(eventually { (broker.ask { $0.held.total } ?? .max) < 8 << 20 })
        let isClosed = greedy.count { $0.isClosedByPeer(seconds: 1) }
        #expect(isClosed >= 8)
    }

    @Test func `producers that outrun the disk go on when it has caught up, also when nothing else happens`() throws {
        // Nobody waits for the disk here, so what gathers is only limited by its size.
        let broker = try TestBroker { $0.fsync = .interval(ms: 600_000) }
        try broker.make("t", ["max.message.bytes": "20000000"])
        let batch = Batches.batch(values: [String(repeating: "x", count: 9_000_000)])
        let peer = try RawClient(port: broker.port)
        for index in 0..<12 as Range<Int64> { #expect(peer.produce("t", batch)?.offset == index) }
    }

    @Test func `with an interval everything comes to the disk, also when a write was under way at its end`() throws {
        var random = SeededGenerator.announced("LimitTests.interval")
        let broker = try TestBroker { $0.fsync = .interval(ms: 1) }
        try broker.make("t")
        let peer = try RawClient(port: broker.port)
        for _ in 0..<20 {
            for _ in 0..<Int.random(in: 1...20, using: &random) {
                let value = String(repeating: "x", count: Int.random(in: 1...100_000, using: &random))
                #expect(peer.produce("t", Batches.batch(values: [value]))?.error == 0)
            }
            #expect(eventually { broker.ask { $0.commits.isIdle } == true })
        }
    }
}
