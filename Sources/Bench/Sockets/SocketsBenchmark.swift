import PushLink
public import Runtime
import System
import WebSocket
public import Wire

/// What the chat server's sockets cost, apart from the rest of the pipeline: connecting with a token, keeping idle devices,
/// and carrying events from a Delivery link to sockets, held against plain `send` of the same bytes in the same run.
///
/// The server is a process of its own, so its memory and CPU time are its own; this process plays the devices and the
/// Delivery worker.
public struct SocketsBenchmark: Sendable {
    /// The fanout program.
    public var executable: String
    /// How many devices stay idle. Both processes hold a descriptor for each.
    public var idleConnections = 19_000
    /// How many devices each event goes to in the fan-out.
    public var recipients = 1000
    public var textBytes = 200
    public var durationMs = 5000

    private let tokens: TokenSource

    /// The key that its server's tokens are signed with (HS256).
    public static let tokenKey = Array("the key of a bench, which guards nothing".utf8)

    /// - Parameter tokens: makes tokens with `tokenKey`.
    public init(executable: String, tokens: @escaping TokenSource) {
        self.executable = executable
        self.tokens = tokens
    }

    public struct Report: Sendable {
        public var connections = 0
        public var connectSeconds = 0.0
        public var connectCPUSeconds = 0.0
        public var bytesPerConnection = 0.0
        public var deliveries = 0
        public var deliverySeconds = 0.0
        public var deliveryCPUSeconds = 0.0
        public var sends = 0
        public var sendCPUSeconds = 0.0

        public var connectsPerCPUSecond: Double { Double(connections) / max(connectCPUSeconds, 0.01) }
        public var deliveriesPerCPUSecond: Double { Double(deliveries) / max(deliveryCPUSeconds, 0.01) }
        public var sendsPerCPUSecond: Double { Double(sends) / max(sendCPUSeconds, 0.01) }

        public var text: String {
            func whole(_ number: Double) -> String { "\(Int(number.rounded()))" }
            return """
                connecting     \(connections) devices in \(whole(connectSeconds * 1000)) ms; \(whole(connectsPerCPUSecond)) a CPU-second of the server
                idle           \(whole(bytesPerConnection)) bytes of the server's memory each
                fan-out        \(whole(Double(deliveries) / max(deliverySeconds, 0.001))) deliveries/s, \(whole(deliveriesPerCPUSecond)) a CPU-second of the server
                plain send     \(whole(sendsPerCPUSecond)) a CPU-second, one call an event
                ratio          \(whole(100 * deliveriesPerCPUSecond / max(sendsPerCPUSecond, 1))) %

                """
        }

        public func write(to json: inout JSONWriter) {
            json.beginObject()
            json.field("connections", connections)
            json.field("connect_seconds", connectSeconds)
            json.field("connects_per_cpu_second", connectsPerCPUSecond)
            json.field("idle_bytes_per_connection", bytesPerConnection)
            json.field("deliveries", deliveries)
            json.field("deliveries_per_second", Double(deliveries) / max(deliverySeconds, 0.001))
            json.field("deliveries_per_cpu_second", deliveriesPerCPUSecond)
            json.field("plain_sends_per_cpu_second", sendsPerCPUSecond)
            json.endObject()
        }
    }

    public func run(log: Log) throws -> Report {
        let target = try ServerUnderTest(executable)
        defer { target.stop() }
        let loop = try EventLoop()
        defer { loop.close() }
        let devices = BenchDevices(loop, target, tokens)
        var report = Report()

        log.info("waiting for the server")
        try devices.waitUntilServing()
        let worker = BenchWorker(loop, port: target.linkPort)
        try devices.run("the worker's link", until: { worker.isOpen })
        // What the first devices make the server set up once is not theirs.
        try devices.connect(count: 200, under: 100)
        let idleBefore = ProcessMeter.residentBytes(of: target.chatID)

        log.info("connecting", ["devices": .init(idleConnections)])
        let startCPU = ProcessMeter.cpuSeconds(of: target.chatID)
        let start = loop.monotonicNs
        try devices.connect(count: 200 + idleConnections, under: 500)
        report.connections = idleConnections
        report.connectSeconds = Double(loop.monotonicNs - start) / 1e9
        report.connectCPUSeconds = ProcessMeter.cpuSeconds(of: target.chatID) - startCPU
        let idle = ProcessMeter.residentBytes(of: target.chatID) - idleBefore
        report.bytesPerConnection = Double(idle) / Double(idleConnections)

        log.info("fanning out", ["recipients": .init(recipients)])
        let frame = [UInt8](repeating: 0x78, count: textBytes)
        let event = Array(#"{"type":"message","text":""#.utf8) + frame + Array(#""}"#.utf8)
        let cpuBefore = ProcessMeter.cpuSeconds(of: target.chatID)
        let fanOut = try devices.fanOut(event, through: worker, to: recipients, durationMs: durationMs)
        report.deliveries = fanOut.deliveries
        report.deliverySeconds = fanOut.seconds
        report.deliveryCPUSeconds = ProcessMeter.cpuSeconds(of: target.chatID) - cpuBefore
        devices.closeAll()

        let plain = try PlainSend(recipients: recipients, bytes: Frame.encode(.text, event), durationMs: durationMs)
            .run()
        report.sends = plain.sends
        report.sendCPUSeconds = plain.cpuSeconds
        return report
    }
}

/// A broker and a chat server as children, on free ports, gone with this object.
final class ServerUnderTest {
    static let linkSecret = "the secret of a bench"

    let port: Int
    let linkPort: Int
    private let broker: ChildProcess
    private let chat: ChildProcess
    private let directory: String

    var chatID: Int32 { chat.id }

    init(_ executable: String) throws {
        directory = try Directory.createTemporary(prefix: "fanout-bench")
        let ports = try Self.freePorts(3)
        (port, linkPort) = (ports[0], ports[1])
        var options = ChildProcess.Options()
        options.ownGroup = true
        options.dieWithParent = .terminate
        options.environment = Environment.all.filter { !$0.key.hasPrefix("FANOUT_") }.merging([
            "FANOUT_KAFKA": "127.0.0.1:\(ports[2])", "FANOUT_LOG_LEVEL": "warning",
            "FANOUT_TOKEN_KEY": String(decoding: SocketsBenchmark.tokenKey, as: UTF8.self),
            "FANOUT_LINK_SECRET": Self.linkSecret,
        ]) { $1 }
        broker = try ChildProcess(
            executable, ["broker", "--data", directory + "/broker", "--listen", "127.0.0.1:\(ports[2])"],
            options: options)
        _ = try ChildProcess.run(executable, ["topics", "create", "--partitions", "4"], options: options)
        chat = try ChildProcess(
            executable,
            [
                "chat", "--listen", "127.0.0.1:\(ports[0])", "--link-listen", "127.0.0.1:\(ports[1])", "--drain",
                "100ms",
            ],
            options: options)
    }

    func stop() {
        for child in [chat, broker] { _ = child.stop() }
        try? Directory.removeAll(directory)
    }

    private static func freePorts(_ count: Int) throws -> [Int] {
        let loop = try EventLoop()
        defer { loop.close() }
        let listeners = try (0..<count).map { _ in try Listener(on: loop, host: "127.0.0.1", port: 0) { _ in } }
        return listeners.map(\.port)
    }
}
