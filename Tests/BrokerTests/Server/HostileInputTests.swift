import Foundation
import KafkaClient
import Runtime
import System
import TestSupport
import Testing
import Wire

@testable import Broker

/// A broker that anyone can write anything to.
@Suite struct HostileInputTests {
    @Test func `no bytes of any request crash its decoder or make it allocate much`() {
        var random = SeededGenerator.announced("HostileInputTests.decoders")
        for type in API.requests {
            for version in type.api.versions {
                for round in 0..<60 {
                    let count = Int.random(in: 0...200, using: &random)
                    let bytes = (0..<count).map { _ in
                        // Small numbers make lengths and counts that go on a while; large ones lie.
                        round % 2 == 0
                            ? UInt8.random(in: 0...3, using: &random) : UInt8.random(in: 0...255, using: &random)
                    }
                    var reader = RequestReader(bytes.span, flexible: version >= type.api.flexibleFrom)
                    _ = try? type.init(from: &reader, version: version)
                    #expect(reader.position <= count)
                }
            }
        }
    }

    @Test func `counts and lengths that the request cannot hold are refused before anything is allocated`() {
        for bytes: [UInt8] in [
            [0x7f, 0xff, 0xff, 0xff], [0x80, 0, 0, 0], [0xff, 0xff, 0xff, 0xfe], [0, 0, 0, 5, 1],
        ] {
            var reader = RequestReader(bytes.span)
            #expect(throws: BrokerError.self) { _ = try reader.int32Array() }
        }
        for bytes: [UInt8] in [[0xff, 0xff, 0xff, 0xff, 0x0f], [0xff, 0xff, 0xff, 0xff, 0x1f], [0x80], [9, 1]] {
            var reader = RequestReader(bytes.span, flexible: true)
            #expect(throws: BrokerError.self) { _ = try reader.string() }
        }
    }

    @Test func `whatever arrives, that connection is closed and others are served`() throws {
        let kafka = try TestKafka.start()
        guard kafka.isEmbedded else { return }
        var random = SeededGenerator.announced("HostileInputTests.connections")
        let port = try #require(UInt16(kafka.address.split(separator: ":").last ?? ""))
        var attacks: [[UInt8]] = [
            [0xff, 0xff, 0xff, 0xff], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0], [0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7],
            Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), RawClient.request(9999, 0, []),
            RawClient.request(0, 99, []),
            RawClient.request(1, 17, [UInt8](repeating: 0xff, count: 300)),
            RawClient.request(3, 1, [0x7f, 0xff, 0xff, 0xff]),
            RawClient.request(24, 0, []), RawClient.request(17, 0, Array("PLAIN".utf8)),
        ]
        for _ in 0..<40 {
            var bytes = (0..<Int.random(in: 1...300, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            // A believable size, so that the decoder sees the rest.
            bytes.insert(contentsOf: [0, 0, UInt8(bytes.count >> 8), UInt8(bytes.count & 0xff)], at: 0)
            attacks.append(bytes)
        }
        for attack in attacks {
            let peer = try RawClient(port: port)
            peer.send(attack)
            peer.finishSending()
            #expect(peer.isClosedByPeer(seconds: 10), "\(attack.prefix(40))")
        }
        let admin = try Admin(KafkaConfiguration(bootstrapServers: kafka.address, clientID: "test"))
        #expect(try admin.metadata().brokers.count == 1)
        _ = admin.close(deadlineMs: 5000)
    }

    @Test func `a request fed byte by byte is answered like one that comes at once`() throws {
        let kafka = try TestKafka.start()
        guard kafka.isEmbedded else { return }
        let port = try #require(UInt16(kafka.address.split(separator: ":").last ?? ""))
        let peer = try RawClient(port: port)
        for byte in RawClient.request(18, 0, []) { peer.send([byte]) }
        let answer = try #require(peer.receiveFrame(seconds: 10))
        var reader = RequestReader(answer.span)
        #expect(try reader.int32() == 77)
        #expect(try reader.int16() == 0)
        let keys = try reader.array { reader throws(BrokerError) in
            let key = try reader.int16()
            _ = try reader.int16()
            _ = try reader.int16()
            return key
        }
        #expect(keys == API.requests.map { $0.api.key })
        // The version that nobody has yet gets the oldest answer, with an error and the versions to choose from.
        peer.send(RawClient.request(18, 99, [1, 2, 3]))
        let refusal = try #require(peer.receiveFrame(seconds: 10))
        #expect(Array(refusal[4..<6]) == [0, 35])
        // Two requests in one write are answered in order.
        peer.send(RawClient.request(18, 0, []) + RawClient.request(16, 0, []))
        #expect(peer.receiveFrame(seconds: 10)?.count == answer.count)
        #expect(peer.receiveFrame(seconds: 10)?.count == 4 + 2 + 4)
    }

    @Test func `whatever becomes of a valid request on its way, the broker answers others and stays small`() throws {
        var random = SeededGenerator.announced("HostileInputTests.mutations")
        let broker = try BrokerProcess(["--partitions", "1"])
        let port = UInt16(broker.port)
        func attack(_ frames: [[UInt8]], _ what: String) throws {
            // Some requests wait for a long time, so nobody waits for their answers.
            let peer = try RawClient(port: port)
            for frame in frames { peer.send(frame) }
            let witness = try RawClient(port: port)
            #expect(witness.ask(18, 0) != nil, "after \(what): \(broker.text.suffix(2000))")
        }
        for golden in GoldenCase.all {
            for _ in 0..<8 {
                let frames = (0..<8).map { _ in
                    RawClient.request(golden.api.key, golden.version, Mutation.of(golden.request, &random))
                }
                try attack(frames, "\(golden.api.name) \(golden.version)")
            }
        }
        for type in API.requests {
            for version in type.api.versions {
                let frames = (0..<8).map { _ in
                    let bytes = (0..<Int.random(in: 0...120, using: &random)).map { _ in
                        UInt8.random(in: 0...(Bool.random(using: &random) ? 3 : 255), using: &random)
                    }
                    return RawClient.request(type.api.key, version, bytes)
                }
                try attack(frames, "\(type.api.name) \(version)")
            }
        }
        let status = try String(contentsOfFile: "/proc/\(broker.pid)/statm", encoding: .utf8).split(separator: " ")
        let residentBytes = (Int(status[1]) ?? .max) * 4096
        #expect(residentBytes < 400 << 20)
    }

    @Test func `a thousand clients at once are all served`() throws {
        CurrentProcess.raiseDescriptorLimit(to: 4096)
        let broker = try TestBroker()
        try broker.make("t", partitions: 10)
        let batch = Batches.batch(values: ["value"])
        let peers = try (0..<1000).map { _ in try RawClient(port: broker.port) }
        #expect(eventually { broker.ask { $0.metrics.connections.value } == 1000 })
        for (index, peer) in peers.enumerated() {
            peer.send(
                RawClient.request(0, 3) { writer in
                    writer.nullableString(nil)
                    writer.int16(-1)
                    writer.int32(1000)
                    writer.array(["t"]) { writer, topic in
                        writer.string(topic)
                        writer.array([batch]) { writer, batch in
                            writer.int32(Int32(index % 10))
                            writer.byteArray(batch)
                        }
                    }
                })
        }
        for peer in peers { #expect(peer.receiveFrame(seconds: 60)?[15..<17] == [0, 0]) }
        let ends = broker.ask { core in core.storage.topics["t"]?.logs.map(\.highWatermark) } ?? nil
        #expect(ends == [Int64](repeating: 100, count: 10))
    }
}
