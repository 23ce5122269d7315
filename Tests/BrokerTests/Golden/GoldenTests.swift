import Foundation
import System
import TestSupport
import Testing
import Wire

@testable import Broker

/// One request with its answer, byte by byte as Apache Kafka's own client writes them (`requests.txt`).
struct GoldenCase {
    let api: API
    let version: Int16
    let request: [UInt8]
    let answer: [UInt8]

    static let all: [GoldenCase] = {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "requests.txt")
        let exchanges = (try? GoldenExchange.all(in: file)) ?? []
        return exchanges.compactMap { exchange in
            guard let api = API.requests.first(where: { $0.api.name == exchange.name })?.api else { return nil }
            return GoldenCase(
                api: api, version: exchange.version, request: exchange.request, answer: exchange.answer)
        }
    }()

    /// The request as it is sent, with its size and header.
    var frame: [UInt8] { RawClient.request(api.key, version, request) }

    /// A broker in the state that the cases begin with: its ids are fixed, it has the topic t of two partitions, and the
    /// group g with one member.
    static func broker(_ change: (inout BrokerConfiguration) -> Void = { _ in }) throws -> TestBroker {
        try TestBroker { configuration in
            configuration.advertisedHost = "localhost"
            configuration.advertisedPort = 9092
            configuration.lastProducerID = 999
            configuration.leaderEpoch = 0
            change(&configuration)
        } prepare: { directory in
            var catalog = Catalog(clusterID: TopicID(high: 1, low: 2))
            let offsets = Catalog.Entry(
                number: 1, name: Topic.offsetsName, id: TopicID(high: 5, low: 6), partitions: 1,
                config: try TopicConfig(overrides: ["cleanup.policy": "compact"]), createdMs: 0)
            let topic = Catalog.Entry(
                number: 2, name: "t", id: TopicID(high: 3, low: 4), partitions: 2, config: TopicConfig(), createdMs: 0)
            catalog.topics = [offsets, topic]
            catalog.nextTopic = 3
            let logs = "\(directory)/topics/1-\(Topic.offsetsName)"
            try Directory.create(logs)
            try File.replaceAtomically("\(directory)/catalog", with: catalog.encoded())
            let member = GroupSnapshot.Member(
                id: "m", instance: nil, clientID: "c", clientHost: "/h", sessionTimeoutMs: 600_000,
                rebalanceTimeoutMs: 600_000, metadata: [1, 2], assignment: [7, 8])
            let group = GroupRecord.group(
                "g",
                GroupSnapshot(
                    group: "g", generation: 5, protocolType: "consumer", protocolName: "range", leader: "m",
                    members: [member]))
            var builder = RecordBatchBuilder(timestamp: 0)
            builder.add(key: group.key, value: group.value(nowMs: 0))
            let segment = Segment(directory: logs, partition: 0, baseOffset: 0)
            try File.replaceAtomically(segment.logPath, with: builder.batch())
        }
    }
}

@Suite struct GoldenTests {
    @Test func `every request there is has a case, and one in the flexible form if it has that`() {
        for type in API.requests {
            let versions = GoldenCase.all.filter { $0.api.key == type.api.key }.map(\.version)
            #expect(!versions.isEmpty, "\(type.api.name)")
            #expect(versions.allSatisfy { type.api.versions.contains($0) }, "\(type.api.name)")
            if type.api.flexibleFrom > type.api.versions.lowerBound, type.api.flexibleFrom < .max {
                #expect(versions.contains { $0 < type.api.flexibleFrom }, "\(type.api.name)")
            }
            if type.api.flexibleFrom < .max {
                #expect(versions.contains { $0 >= type.api.flexibleFrom }, "\(type.api.name)")
            }
        }
    }

    @Test func `a request of Apache Kafka's client is read to its last byte`() throws {
        for golden in GoldenCase.all {
            let type = try #require(API.byKey[golden.api.key])
            var reader = RequestReader(golden.request.span, flexible: golden.version >= golden.api.flexibleFrom)
            _ = try type.init(from: &reader, version: golden.version)
            try reader.skipTags()
            #expect(reader.remaining == 0, "\(golden.api.name) \(golden.version)")
            // One byte less is too few.
            var cut = RequestReader(
                golden.request.span.extracting(0..<max(0, golden.request.count - 1)),
                flexible: golden.version >= golden.api.flexibleFrom)
            if golden.request.isEmpty { continue }
            #expect(throws: BrokerError.self, "\(golden.api.name) \(golden.version)") {
                _ = try type.init(from: &cut, version: golden.version)
                try cut.skipTags()
            }
        }
    }

    @Test func `every answer is byte for byte what Apache Kafka's client would write`() throws {
        let broker = try GoldenCase.broker()
        let peer = try RawClient(port: broker.port)
        for golden in GoldenCase.all {
            peer.send(golden.frame)
            let frame = try #require(
                peer.receiveFrame(seconds: 20), "no answer to \(golden.api.name) \(golden.version)")
            var expected: [UInt8] = [0, 0, 0, 77]
            let isFlexible = golden.version >= golden.api.flexibleFrom
            if isFlexible, golden.api.key != ApiVersionsRequest.api.key { expected.append(0) }
            #expect(frame == expected + golden.answer, "\(golden.api.name) \(golden.version)")
        }
    }
}
