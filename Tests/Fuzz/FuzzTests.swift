@testable import Broker
import Foundation
import PushLink
import System
import TestSupport
import Testing
import Wire

/// Each fuzzer for a moment: what is right, and what becomes of it with a few bytes changed. To find more, let
/// `scripts/fuzz` run for longer.
@Suite struct FuzzTests {
    @Test(arguments: FuzzTarget.all.map(\.name))
    func `a decoder bears what is almost right`(_ name: String) throws {
        let target = try #require(FuzzTarget.all.first { $0.name == name })
        var random = SeededGenerator.announced("FuzzTests.\(name)")
        let seeds = try #require(try Self.seeds()[name], "\(name) has nothing to begin with")
        for seed in seeds { target.feed(seed) }
        let end = ContinuousClock.now + .milliseconds(700)
        var rounds = 0
        while ContinuousClock.now < end {
            target.feed(Mutation.of(seeds[Int.random(in: 0..<seeds.count, using: &random)], &random))
            rounds += 1
        }
        #expect(rounds > 20)
    }

    private static let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()

    private static func seeds() throws -> [String: [[UInt8]]] {
        func texts(_ texts: String...) -> [[UInt8]] { texts.map { Array($0.utf8) } }
        let id = "01890a5d-ac96-774b-bcce-b302099a8057"
        let captured = try String(
            contentsOf: tests.appending(path: "CDCTests/Golden/pgoutput-15-v2.txt"), encoding: .utf8)
        return [
            "http": texts(
                "GET /v1/ws?device=a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                "POST /v1/chats HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{  }GET / HTTP/1.0\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            "reply": texts(
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end"),
            "websocket": [
                [0x81, 0x82, 1, 2, 3, 4, 0x69, 0x6b, 0x89, 0x80, 0, 0, 0, 0],
                [0x01, 0x81, 0, 0, 0, 0, 0x61, 0x80, 0x81, 0, 0, 0, 0, 0x62, 0x88, 0x82, 0, 0, 0, 0, 3, 0xe8],
                [0xc1, 0x87, 0, 0, 0, 0, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            ],
            "token": texts("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoxfQ.AAAA", #"{"sub":"\#(id)","exp":9}"#),
            "frame": texts(
                #"{"type":"hello","cursor":"server"}"#,
                #"{"type":"send","id":"\#(id)","chat":"\#(id)","text":"a\u00e9","reply_to":7}"#,
                #"{"type":"member","chat":"\#(id)","user":"\#(id)","change":"added","meta_version":2}"#),
            "json": texts(
                #"{"id":"\#(id)","chat":"\#(id)","from":"\#(id)","device":"d","kind":"text","text":"a\ud83d\ude00"}"#,
                #"{"to":["\#(id)"],"event":{"type":"message","n":[1,-2.5e3,true,null]}}"#,
                #"{"op":"u","before":null,"after":{"id":"\#(id)"},"source":{"table":"t","lsn":1,"txId":2,"ts_ms":3}}"#),
            "link": [links().toInstance], "worker": [links().toWorker],
            "kafka": try GoldenExchange.all(in: tests.appending(path: "BrokerTests/Golden/requests.txt")).compactMap {
                exchange in
                guard let place = API.requests.firstIndex(where: { $0.api.name == exchange.name }) else { return nil }
                let version = exchange.version - API.requests[place].api.versions.lowerBound
                return [UInt8(place), UInt8(version)] + exchange.request
            },
            "segment": [logFile(batches: 1), logFile(batches: 4)], "journal": journals(),
            "pgoutput": captured.split(separator: "\n").map { GoldenExchange.bytes($0) },
            "fetch": [fetched(), logFile(batches: 4)],
        ]
    }

    /// What each end of a link hears from the other, from its start.
    private static func links() -> (toInstance: [UInt8], toWorker: [UInt8]) {
        let nonce = [UInt8](repeating: 2, count: 32)
        let identity = LinkIdentity(name: "fuzz", epoch: 1)
        var worker = WorkerLink(identity: identity, secret: fuzzSecret, nonce: nonce, nowMs: 0)
        var instance = InstanceLink(identity: identity, secret: fuzzSecret, nonce: nonce, nowMs: 0)
        var (toInstance, toWorker): ([UInt8], [UInt8]) = ([], [])
        func exchange() {
            let sent = worker.takeOutput(nowMs: 0)
            instance.receive(sent.span, nowMs: 0)
            while let _ = try? instance.next() {}
            let answer = instance.takeOutput(nowMs: 0)
            worker.receive(answer.span, nowMs: 0)
            while let _ = try? worker.next() {}
            toInstance += sent
            toWorker += answer
        }
        for _ in 0..<3 { exchange() }
        worker.send(.release([1, 2]))
        worker.send(.heartbeat)
        instance.send(.refused(partition: 1, term: 2))
        instance.send(.unregister(partition: 1, [2, 3]))
        exchange()
        return (toInstance, toWorker)
    }

    private static func batch(at offset: Int64) -> [UInt8] {
        var builder = RecordBatchBuilder(timestamp: 5)
        builder.add(key: [0x6b], value: [0x76])
        builder.add(key: nil, value: nil)
        var bytes = builder.batch()
        RecordBatch.place(&bytes, at: 0, baseOffset: offset, leaderEpoch: 0)
        return bytes
    }

    private static func logFile(batches: Int64) -> [UInt8] { (0..<batches).flatMap { batch(at: $0 * 2) } }

    /// What a broker answers to a question for records of two partitions, of which one has some.
    private static func fetched() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(0 as Int32)
        bytes.appendBigEndian(0 as Int16)
        for number in [0, 1] as [Int32] { bytes.appendBigEndian(number) }
        bytes += [0, 1, 0x74]
        bytes.appendBigEndian(2 as Int32)
        for partition in 0..<2 as Range<Int32> {
            bytes.appendBigEndian(partition)
            bytes.appendBigEndian(0 as Int16)
            for offset in [8, 8, 0] as [Int64] { bytes.appendBigEndian(offset) }
            bytes.appendBigEndian(1 as Int32)
            for number in [7, 0] as [Int64] { bytes.appendBigEndian(number) }
            let records = partition == 0 ? [] : logFile(batches: 4)
            bytes.appendBigEndian(Int32(records.count))
            bytes += records
        }
        return bytes
    }

    private static func journals() -> [[UInt8]] {
        let header = Journal.fileHeader(generation: 3)
        var group: [UInt8] = []
        for offset in 0..<3 as Range<Int64> {
            let batch = batch(at: offset * 2)
            Journal.appendHeader(.batch, topic: 1, partition: 0, length: batch.count, to: &group)
            group += batch
        }
        _ = Journal.seal(&group, chain: header.chain)
        var checkpoint = Checkpoint(generation: 2)
        var known = PartitionLog.Recovered()
        if let batch = try? RecordBatch(header: batch(at: 0).span) { known.producers.record(batch, nowMs: 0) }
        checkpoint.partitions = [.init(topic: 1, partition: 0, recovered: known)]
        var catalog = Catalog(clusterID: TopicID(high: 1, low: 2))
        catalog.topics = [
            .init(number: 1, name: "t", id: .zero, partitions: 2, config: TopicConfig(), createdMs: 0)
        ]
        // Without what stands before their contents, which the target adds again.
        return [
            header.bytes + group, Array(checkpoint.encoded().dropFirst(12)), Array(catalog.encoded().dropFirst(12)),
        ]
    }
}
