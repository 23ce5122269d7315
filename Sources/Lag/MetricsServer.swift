public import Runtime
public import System
import WebSocket

/// Answers `/metrics`, `/healthz` and `/readyz` for a stage that has no HTTP of its own. On the loop's thread only.
public final class MetricsServer {
    /// More than scrapers and probes ever need; whoever comes on top is closed at once.
    private static let connectionsMax = 64

    private let loop: EventLoop
    private let render: () -> [UInt8]
    private let isReady: () -> Bool
    private var listener: Listener?
    private var connections: [ObjectIdentifier: Connection] = [:]

    /// - Parameter isReady: whether the stage does its work now; `/readyz` answers 503 while it does not.
    public convenience init(
        on loop: EventLoop, address: Address, metrics: Metrics, isReady: @escaping () -> Bool = { true }
    ) throws(SystemError) {
        try self.init(on: loop, address: address, render: { metrics.render() }, isReady: isReady)
    }

    /// - Parameter render: the text of `/metrics` now.
    public init(
        on loop: EventLoop, address: Address, render: @escaping () -> [UInt8], isReady: @escaping () -> Bool = { true }
    ) throws(SystemError) {
        self.loop = loop
        self.render = render
        self.isReady = isReady
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
            return HTTPResponse(status: 200, type: "text/plain", body: Array("ok\n".utf8))
        case "/readyz":
            let ready = isReady()
            return HTTPResponse(
                status: ready ? 200 : 503, type: "text/plain", body: Array((ready ? "ready\n" : "not ready\n").utf8))
        default:
            return HTTPResponse(status: 404, type: "text/plain", body: Array("try /metrics\n".utf8))
        }
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
