import System

/// Where everything listens. Chosen and checked before anything is started, so that a port in use is one clear line.
struct Ports: Sendable {
    let chat: UInt16
    let link: UInt16
    let broker: UInt16
    let postgres: UInt16
    /// One for each stage without an HTTP port of its own, in the order of `Pipeline.metricNames`.
    let metrics: [String: UInt16]

    init(_ configuration: OneMachineConfiguration) throws {
        chat = try Self.claim(configuration.port, option: "--port", what: "the chat server")
        broker =
            configuration.kafka != nil
            ? 0 : try Self.claim(configuration.brokerPort, option: "--kafka-port", what: "the broker")
        postgres =
            configuration.postgres != nil
            ? 0 : try Self.claim(configuration.postgresPort, option: "--postgres-port", what: "Postgres")
        link = try Self.claim(0, option: "", what: "the push link")
        var metrics: [String: UInt16] = [:]
        for name in Pipeline.metricNames { metrics[name] = try Self.claim(0, option: "", what: "metrics") }
        self.metrics = metrics
    }

    /// The port, or a free one for 0.
    private static func claim(_ port: UInt16, option: String, what: String) throws -> UInt16 {
        do {
            // Bound and let go again: whoever it is for binds it a moment later.
            let loop = try EventLoop()
            defer { loop.close() }
            let listener = try Listener(on: loop, host: "127.0.0.1", port: Int(port)) { _ in }
            defer { listener.close() }
            return UInt16(listener.port)
        } catch {
            throw OneMachineError(
                .portInUse, "port \(port), meant for \(what), is in use; choose another with \(option)")
        }
    }
}

/// Tries once whether somebody accepts connections on a loopback port.
final class PortProbe: StreamDelegate {
    private(set) var answered: Bool?

    init(port: UInt16, on loop: EventLoop) {
        _ = Stream.connect(host: "127.0.0.1", port: Int(port), on: loop, delegate: self, timeoutMs: 1000)
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {}

    func streamConnected(_ stream: Stream) {
        answered = true
        stream.close()
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        if answered == nil { answered = false }
    }
}
