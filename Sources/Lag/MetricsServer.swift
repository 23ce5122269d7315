public import Runtime
public import System
import WebSocket

/// Answers `/metrics`, `/healthz` and `/readyz` for a stage that has no HTTP of its own. On the loop's thread only.
public final class MetricsServer {
    /// More than scrapers and probes ever need; whoever comes on top is closed at once.
    private static let connectionsMax = 64

    private let loop: EventLoop
    private let render: () -> [UInt8]
    private let health: Health
    private var listener: Listener?
    private var connections: [ObjectIdentifier: Connection] = [:]

    /// - Parameter health: what `/readyz` and `/healthz` answer by.
    public convenience init(
        on loop: EventLoop, address: Address, metrics: Metrics, health: Health
    ) throws(SystemError) {
        try self.init(on: loop, address: address, render: { metrics.render() }, health: health)
    }

    /// - Parameter render: the text of `/metrics` now.
    public init(
        on loop: EventLoop, address: Address, render: @escaping () -> [UInt8], health: Health
    ) throws(SystemError) {
        self.loop = loop
        self.render = render
        self.health = health
        listener = try Listener(on: loop, host: address.host, port: Int(address.port)) { [unowned self] socket in
            accept(socket)
        }
    }

    public var port: UInt16 { UInt16(listener?.port ?? 0) }

    public func close() {
        listener?.close()
        listener = nil
        for connection in connections.values { connection.stream?.close() }
    }

    private func accept(_ socket: consuming Socket) {
        guard connections.count < Self.connectionsMax else { return }
        let connection = Connection(self)
        guard let stream = try? Stream(socket, on: loop, delegate: connection) else { return }
        connection.stream = stream
        connections[ObjectIdentifier(connection)] = connection
    }

    private func answer(_ request: HTTPRequest) -> HTTPResponse {
        guard request.method == "GET" || request.method == "HEAD" else {
            return HTTPResponse(status: 405, type: "text/plain", body: Array("only GET\n".utf8))
        }
        switch request.path {
        case "/metrics":
            return HTTPResponse(status: 200, type: "text/plain; version=0.0.4; charset=utf-8", body: render())
        case "/healthz":
            let verdict = health.look()
            return Self.answer(verdict.isAlive, verdict.isAlive ? "ok\n" : verdict.text)
        case "/readyz":
            let verdict = health.look()
            return Self.answer(verdict.isReady, verdict.text)
        default:
            return HTTPResponse(status: 404, type: "text/plain", body: Array("try /metrics\n".utf8))
        }
    }

    private static func answer(_ isGood: Bool, _ text: String) -> HTTPResponse {
        HTTPResponse(status: isGood ? 200 : 503, type: "text/plain", body: Array(text.utf8))
    }

    private final class Connection: StreamDelegate {
        private unowned let server: MetricsServer
        private var parser = HTTPParser()
        var stream: Stream?

        init(_ server: MetricsServer) { self.server = server }

        func stream(_ stream: Stream, received bytes: Span<UInt8>) {
            var offset = 0
            do {
                while let request = try parser.next(bytes, &offset) {
                    let response = server.answer(request)
                    _ = stream.write(response.encode(keepsAlive: request.keepsAlive, isHead: request.method == "HEAD"))
                    guard request.keepsAlive else { return stream.closeAfterFlush() }
                }
            } catch {
                _ = stream.write(HTTPResponse(status: error.status).encode(keepsAlive: false))
                stream.closeAfterFlush()
            }
        }

        func streamClosed(_ stream: Stream, reason: CloseReason) {
            self.stream = nil
            server.connections[ObjectIdentifier(self)] = nil
        }
    }
}

extension Metrics {
    /// What every process shows of itself.
    public func registerProcess() {
        gauge("process_resident_memory_bytes", "Resident memory.") { Double(CurrentProcess.residentBytes) }
        counter("process_cpu_seconds_total", "CPU time of all threads.") { Double(CurrentProcess.cpuNs) / 1e9 }
        gauge("process_open_fds", "Open file descriptors.") { Double(CurrentProcess.descriptorCount) }
        gauge("process_max_fds", "The limit of open file descriptors.") { Double(CurrentProcess.descriptorLimit) }
    }
}
