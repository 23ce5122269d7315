import Foundation
import System
import TestSupport
import Wire

@testable import Broker

/// A broker inside the test, which can look into it. Its directory outlives `stop` and `start`, not this object.
final class TestBroker {
    let directory = NSTemporaryDirectory() + TestKafka.unique("fanout-broker")
    private(set) var configuration: BrokerConfiguration
    private var server: BrokerServer?

    /// - Parameter prepare: puts something into the directory first.
    init(
        _ change: (inout BrokerConfiguration) -> Void = { _ in }, prepare: (String) throws -> Void = { _ in }
    ) throws {
        configuration = BrokerConfiguration(dataDirectory: directory)
        configuration.port = 0
        configuration.journalBytes = 4 << 20
        change(&configuration)
        try prepare(directory)
        try start()
    }

    deinit {
        stop()
        try? FileManager.default.removeItem(atPath: directory)
    }

    func start() throws { server = try BrokerServer(configuration) }

    func stop() {
        server?.stop()
        server?.run()
        server = nil
    }

    var port: UInt16 { UInt16(server?.boundPort ?? 0) }
    var address: String { "127.0.0.1:\(port)" }

    /// Asks the broker something on its own thread.
    func ask<Answer: Sendable>(_ body: @escaping @Sendable (BrokerCore) -> Answer) -> Answer? {
        guard let server else { return nil }
        let handover = Handover<Answer>()
        let core = server.core
        _ = server.thread.remote.execute { handover.put(body(core.value(on: $0))) }
        return handover.take()
    }

    /// Makes a topic with one partition.
    func make(_ topic: String, partitions: Int32 = 1, _ settings: [String: String] = [:]) throws {
        let config = try TopicConfig(overrides: settings)
        let failure = ask { (core) -> BrokerError? in
            do throws(BrokerError) {
                try core.storage.create([(topic, partitions, config)], nowMs: core.loop.nowMs)
                return nil
            } catch {
                return error
            }
        }
        if let failure = failure ?? nil { throw failure }
    }
}

extension RawClient {
    /// Sends a request and waits for its answer: what follows the correlation id and, in flexible versions, the tags.
    func ask(
        _ key: Int16, _ version: Int16, clientID: String = "test", _ fields: (inout ResponseWriter) -> Void = { _ in }
    ) -> [UInt8]? {
        send(RawClient.request(key, version, clientID: clientID, fields))
        guard let frame = receiveFrame(seconds: 60) else { return nil }
        let isFlexible = key != ApiVersionsRequest.api.key && version >= API.byKey[key]?.api.flexibleFrom ?? .max
        return Array(frame.dropFirst(isFlexible ? 5 : 4))
    }

    /// Produces one batch; the error code and the offset it got.
    func produce(_ topic: String, partition: Int32 = 0, _ batch: [UInt8]) -> (error: Int16, offset: Int64)? {
        let answer = ask(0, 3) { writer in
            writer.nullableString(nil)
            writer.int16(-1)
            writer.int32(1000)
            writer.array([topic]) { writer, topic in
                writer.string(topic)
                writer.array([batch]) { writer, batch in
                    writer.int32(partition)
                    writer.byteArray(batch)
                }
            }
        }
        guard let answer else { return nil }
        let start = 4 + 2 + topic.utf8.count + 4 + 4
        return (answer.span.bigEndian(at: start), answer.span.bigEndian(at: start + 2))
    }

    /// The request that fetches one partition.
    static func fetch(
        _ topic: String, partition: Int32 = 0, from offset: Int64, maxWaitMs: Int32, minBytes: Int32 = 1,
        maxBytes: Int32 = 1 << 20
    ) -> [UInt8] {
        request(1, 4) { writer in
            writer.int32(-1)
            writer.int32(maxWaitMs)
            writer.int32(minBytes)
            writer.int32(maxBytes)
            writer.int8(0)
            writer.array([topic]) { writer, topic in
                writer.string(topic)
                writer.array([partition]) { writer, partition in
                    writer.int32(partition)
                    writer.int64(offset)
                    writer.int32(maxBytes)
                }
            }
        }
    }
}
