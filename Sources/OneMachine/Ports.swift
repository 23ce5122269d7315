import System

/// Where everything listens. Chosen and checked before anything is started, so that a port in use is one clear line.
struct Ports: Sendable {
    let chat: UInt16
    let link: UInt16
    let broker: UInt16
    let postgres: UInt16
    /// One for each stage without an HTTP port of its own, by the names of `Pipeline.metricNames`.
    let metrics: [String: UInt16]

    init(_ configuration: OneMachineConfiguration) throws {
        let claims = try PortClaims()
        defer { claims.release() }
        chat = try claims.claim(configuration.port, option: "--port", what: "the chat server")
        broker =
            configuration.kafka != nil
            ? 0 : try claims.claim(configuration.brokerPort, option: "--kafka-port", what: "the broker")
        postgres =
            configuration.postgres != nil
            ? 0 : try claims.claim(configuration.postgresPort, option: "--postgres-port", what: "Postgres")
        link = try claims.claimFree()
        var metrics: [String: UInt16] = [:]
        for name in Pipeline.metricNames where name != "broker" || configuration.kafka == nil {
            metrics[name] = try claims.claimFree()
        }
        self.metrics = metrics
    }
}

/// Loopback ports that are bound until all are chosen, so that no two are alike; then let go, and whoever each is for
/// binds it a moment later, and again after each of its restarts.
final class PortClaims {
    private let loop: EventLoop
    private let free: ClosedRange<UInt16>?

    /// - Parameter ephemeral: what the kernel gives to outgoing connections. A free port is chosen outside of it, where no
    ///   connection can take it while a service is down.
    init(ephemeral: ClosedRange<UInt16>? = PortClaims.ephemeral) throws {
        loop = try EventLoop()
        free = Self.roomBeside(ephemeral)
    }

    func release() { loop.close() }

    /// The port that was asked for, or a free one for 0.
    func claim(_ port: UInt16, option: String, what: String) throws -> UInt16 {
        guard port != 0 else { return try claimFree() }
        do {
            return try hold(port)
        } catch {
            throw Self.refusal(error, "port \(port), meant for \(what),", option: option)
        }
    }

    static func refusal(_ error: SystemError, _ port: String, option: String) -> OneMachineError {
        let reason =
            switch error.code {
            case .addressInUse: "is in use"
            case .permissionDenied: "is not open to this user (\(error.message))"
            default: "cannot be had (\(error.message))"
            }
        return OneMachineError(.port, "\(port) \(reason); choose another with \(option)")
    }

    func claimFree() throws -> UInt16 {
        if let free {
            for _ in 0..<100 {
                if let port = try? hold(.random(in: free)) { return port }
            }
        }
        return try hold(0)
    }

    private func hold(_ port: UInt16) throws(SystemError) -> UInt16 {
        let listener = try Listener(on: loop, host: "127.0.0.1", port: Int(port)) { _ in }
        return UInt16(listener.port)
    }

    private static var ephemeral: ClosedRange<UInt16>? {
        let text = (try? File.text(of: "/proc/sys/net/ipv4/ip_local_port_range")) ?? ""
        let bounds = text.split(whereSeparator: \.isWhitespace).compactMap { UInt16($0) }
        return bounds.count == 2 && bounds[0] <= bounds[1] ? bounds[0]...bounds[1] : nil
    }

    /// The larger part of the unprivileged ports that is left beside the ephemeral ones; `nil` when hardly any is.
    private static func roomBeside(_ ephemeral: ClosedRange<UInt16>?) -> ClosedRange<UInt16>? {
        guard let ephemeral else { return nil }
        // Below are the ports that well-known services have, such as our own 8080 and 9092.
        let lowest: UInt16 = 10_000
        let below = lowest < ephemeral.lowerBound ? lowest...(ephemeral.lowerBound - 1) : nil
        let above = ephemeral.upperBound < .max ? (ephemeral.upperBound + 1)...UInt16.max : nil
        return [below, above].compactMap { $0 }.filter { $0.count >= 1000 }.max { $0.count < $1.count }
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
