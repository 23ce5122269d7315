internal import Broker
internal import Foundation
internal import Synchronization

/// A log to test against: an embedded broker of the test's own in a temporary directory, or, with
/// `FANOUT_TEST_KAFKA=host:port`, that cluster, which all tests share.
///
/// Because the cluster is shared, a test names its topics and groups through `unique`. The broker and its directory go
/// away with this object.
public final class TestKafka: Sendable {
    /// `host:port`, for `bootstrap.servers` and `--kafka`.
    public let address: String
    /// Whether this is a broker of our own, which may be filled and stopped as one likes.
    public let isEmbedded: Bool

    private let server: BrokerServer?
    private let directory: String?
    private let isStopped = Mutex(false)

    /// One for all tests of a process that have no reason to have their own.
    public static func shared() throws -> TestKafka { try sharedResult.get() }
    private static let sharedResult = Result { try TestKafka.start() }

    /// Starts a broker, unless the environment names a cluster.
    public static func start(partitions: Int32 = 1) throws -> TestKafka {
        if let cluster = ProcessInfo.processInfo.environment["FANOUT_TEST_KAFKA"], !cluster.isEmpty {
            return TestKafka(address: cluster, server: nil, directory: nil)
        }
        let directory = temporaryDirectory("fanout-broker")
        var configuration = BrokerConfiguration(dataDirectory: directory)
        configuration.port = 0
        configuration.defaultPartitions = partitions
        configuration.journalBytes = 8 << 20
        configuration.retentionCheckMs = 1000
        let server = try BrokerServer(configuration)
        return TestKafka(address: "127.0.0.1:\(server.boundPort)", server: server, directory: directory)
    }

    private init(address: String, server: BrokerServer?, directory: String?) {
        self.address = address
        self.server = server
        self.directory = directory
        isEmbedded = server != nil
    }

    deinit { stop() }

    /// Ends the embedded broker and removes its data; a cluster is left alone.
    public func stop() {
        let isFirst = isStopped.withLock { stopped in
            defer { stopped = true }
            return !stopped
        }
        guard isFirst, let server else { return }
        server.stop()
        server.run()
        if let directory { try? FileManager.default.removeItem(atPath: directory) }
    }

    /// A name that no other test uses, also not in another run.
    public static func unique(_ name: String) -> String {
        name + "-" + String(UInt64.random(in: 0 ... .max), radix: 36)
    }
}

/// The real `fanout broker` as a child process, for tests that kill it. It keeps its directory and its port over restarts.
public final class BrokerProcess: Sendable {
    public let directory: String
    public let port: Int
    private let arguments: [String]
    private let environment: [String: String]
    private let process: Mutex<FanoutProcess>

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    /// - Parameters:
    ///   - arguments: further options of `fanout broker`.
    ///   - directory: where to keep everything, instead of a new temporary directory.
    public init(
        _ arguments: [String] = [], environment: [String: String] = [:], directory: String? = nil
    ) throws {
        self.directory = directory ?? temporaryDirectory("fanout-broker")
        self.arguments = arguments
        self.environment = environment
        let first = try Self.launch(self.directory, 0, arguments, environment)
        port = first.port
        process = Mutex(first.process)
    }

    deinit {
        process.withLock { $0.kill() }
        try? FileManager.default.removeItem(atPath: directory)
    }

    public var address: String { "127.0.0.1:\(port)" }
    public var pid: Int32 { process.withLock { $0.pid } }
    public var text: String { process.withLock { $0.text } }

    /// SIGKILL; returns when it is gone.
    public func kill() { process.withLock { $0.kill() } }

    /// Stops it as a service manager does.
    @discardableResult
    public func terminate() -> Int32? { process.withLock { $0.terminate() } }

    /// Starts it again, after `kill` or `terminate`.
    public func restart() throws {
        let next = try Self.launch(directory, port, arguments, environment).process
        process.withLock { $0 = next }
    }

    private static func launch(
        _ directory: String, _ port: Int, _ arguments: [String], _ environment: [String: String]
    ) throws -> (process: FanoutProcess, port: Int) {
        let process = try FanoutProcess(
            ["broker", "--data", directory, "--listen", "127.0.0.1:\(port)"] + arguments, environment: environment)
        guard process.waitForOutput(" port="), let found = process.text.split(separator: " port=").last,
            let port = Int(found.prefix { $0.isNumber })
        else { throw Failure(description: "the broker did not start: \(process.text)") }
        return (process, port)
    }
}

func temporaryDirectory(_ prefix: String) -> String {
    NSTemporaryDirectory() + prefix + "-" + String(UInt64.random(in: 0 ... .max), radix: 36)
}
