import PostgresClient
import Foundation
import Synchronization

/// A private Postgres in a temporary directory: initdb, a free port of 127.0.0.1 and a Unix socket, logical decoding on.
///
/// Postgres refuses to run as root, so there it runs as the user `postgres`. The directory and the server go away with
/// this object, and also when the process dies: a shell outside of it waits on a pipe for that.
public final class PostgresCluster: Sendable {
    public enum StopMode: String, Sendable { case smart, fast, immediate }

    public struct Failure: Error, CustomStringConvertible {
        public var description: String
    }

    /// One server for all tests of a process; a test takes a database of its own from it.
    public static func shared() throws -> PostgresCluster { try sharedResult.get() }
    private static let sharedResult = Result { try PostgresCluster() }

    public let directory: String
    public let port: Int
    private let watchdogInput: FileHandle
    private let databaseCount = Atomic<Int>(0)

    /// - Parameters:
    ///   - settings: lines for postgresql.conf.
    ///   - durable: with fsync, for tests that kill the machine rather than the process (and for honest benchmarks).
    public convenience init(settings: [String: String] = [:], durable: Bool = false) throws {
        try self.init(in: Self.freshPath())
        try Self.runAsServerUser(
            "initdb", ["-D", "\(directory)/data", "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8", "--no-locale"])
        var configuration = [
            "listen_addresses": "'127.0.0.1'", "port": "\(port)", "unix_socket_directories": "'\(directory)'",
            "wal_level": "logical", "max_wal_senders": "32", "max_replication_slots": "32", "max_connections": "120",
            "shared_buffers": "'64MB'", "fsync": durable ? "on" : "off", "wal_sender_timeout": "'30s'",
            "log_min_messages": "warning",
        ]
        if !durable {
            configuration["full_page_writes"] = "off"
        }
        configuration.merge(settings) { $1 }
        try add(configuration)
        try start()
    }

    /// A standby of another, which follows it by streaming until it is promoted.
    public convenience init(standbyOf primary: PostgresCluster) throws {
        try self.init(in: Self.freshPath())
        try Self.runAsServerUser(
            "pg_basebackup",
            [
                "-D", "\(directory)/data", "-h", primary.directory, "-p", "\(primary.port)", "-U", "postgres",
                "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast",
            ])
        try add(["port": "\(port)", "unix_socket_directories": "'\(directory)'"])
        try start()
    }

    private static func freshPath() -> String {
        NSTemporaryDirectory() + "fanout-pg-" + String(UInt64.random(in: 0 ... .max), radix: 36)
    }

    /// A directory and a port, with nothing in the one and nobody at the other.
    private init(in directory: String) throws {
        self.directory = directory
        port = try Self.freePort()
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        watchdogInput = try Self.startWatchdog(directory)
        if getuid() == 0 {
            try Self.run("/bin/chown", ["postgres", directory])
        }
    }

    /// The last line that names a setting counts.
    private func add(_ settings: [String: String]) throws {
        let text = settings.sorted { $0.key < $1.key }.map { "\($0.key) = \($0.value)\n" }.joined()
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: "\(directory)/data/postgresql.conf"))
        try file.seekToEnd()
        try file.write(contentsOf: Data(text.utf8))
        try file.close()
    }

    deinit {
        // The watchdog does the rest; this process need not wait for it.
        try? watchdogInput.close()
    }

    // MARK: Databases

    /// The connection string of a database of this server, over its Unix socket or over TCP.
    public func connectionString(database: String = "postgres", tcp: Bool = false) -> String {
        "host=\(tcp ? "127.0.0.1" : directory) port=\(port) user=postgres dbname=\(database)"
    }

    /// The connection string of a new database: empty, or with Fanout's schema.
    public func freshDatabase(migrated: Bool = false) throws -> String {
        let name = "test\(databaseCount.wrappingAdd(1, ordering: .relaxed).newValue)"
        var connection = try PostgresConnection(connectionString())
        try connection.execute("CREATE DATABASE \(name)")
        let database = connectionString(database: name)
        if migrated {
            var connection = try PostgresConnection(database)
            try Migrations.apply(to: &connection)
        }
        return database
    }

    // MARK: Life

    /// Starts the server and waits until it answers.
    public func start() throws {
        try Self.runAsServerUser(
            "pg_ctl", ["-D", "\(directory)/data", "-w", "-t", "60", "-s", "-l", "\(directory)/log", "start"])
    }

    public func stop(_ mode: StopMode = .fast) throws {
        try Self.runAsServerUser(
            "pg_ctl", ["-D", "\(directory)/data", "-w", "-t", "60", "-s", "-m", mode.rawValue, "stop"])
    }

    public func restart(_ mode: StopMode = .fast) throws {
        try stop(mode)
        try start()
    }

    /// Stops all of its processes where they are: connections stay, and nothing answers.
    public func freeze() throws { try signalAll("STOP") }

    public func thaw() throws { try signalAll("CONT") }

    private func signalAll(_ signal: String) throws {
        let script = "read -r pid < \(directory)/data/postmaster.pid; kill -\(signal) $pid $(pgrep -P $pid)"
        _ = try Self.run("/bin/sh", ["-c", script])
    }

    /// Makes a standby the server that takes writes.
    public func promote() throws {
        try Self.runAsServerUser("pg_ctl", ["-D", "\(directory)/data", "-w", "-t", "60", "-s", "promote"])
    }

    /// What the server has logged so far.
    public var log: String { (try? String(contentsOfFile: "\(directory)/log", encoding: .utf8)) ?? "" }

    // MARK: Pieces

    /// Where the newest installed server's programs are; `FANOUT_PG_BIN` overrides.
    public static let programs: String = {
        if let path = ProcessInfo.processInfo.environment["FANOUT_PG_BIN"] { return path }
        let root = "/usr/lib/postgresql"
        let versions = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
        let newest = versions.compactMap { Int($0) }.max()
        return newest.map { "\(root)/\($0)/bin" } ?? "/usr/bin"
    }()

    /// Runs one of Postgres' programs as a user that it accepts.
    @discardableResult
    public static func runAsServerUser(_ program: String, _ arguments: [String]) throws -> String {
        let path = "\(programs)/\(program)"
        if getuid() != 0 { return try run(path, arguments) }
        return try run(
            "/usr/bin/setpriv",
            ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", path] + arguments)
    }

    /// Runs a program to its end; what it says is in the error if it fails.
    @discardableResult
    static func run(_ path: String, _ arguments: [String]) throws -> String {
        // The server outlives pg_ctl and would keep a pipe open, so what they say goes to a file.
        let output = NSTemporaryDirectory() + "fanout-out-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        defer { _ = unsafe unlink(output) }
        let process = try spawn(path, arguments, input: "/dev/null", output: output)
        let status = wait(for: process)
        let text = (try? String(contentsOfFile: output, encoding: .utf8)) ?? ""
        guard status == 0 else {
            throw Failure(description: "\(path) \(arguments.joined(separator: " ")): \(text)")
        }
        return text
    }

    /// A shell that reads from us until we are gone, then ends the server and removes the directory. It finds our end
    /// of the pipe closed even when we had no time to close it.
    private static func startWatchdog(_ directory: String) throws -> FileHandle {
        let script = """
            read -r nothing
            if [ -s "$0/data/postmaster.pid" ]; then
                read -r pid < "$0/data/postmaster.pid"
                kill -QUIT "$pid" 2>/dev/null
                while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
            fi
            rm -rf "$0"
            """
        var ends: [Int32] = [0, 0]
        guard unsafe pipe(&ends) == 0 else { throw Failure(description: "no pipe") }
        // No child may inherit the writing end, or the pipe would stay open after us.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        // A grandchild, so that it is not ours to reap: a dead child that nobody waits for keeps Swift Testing, which
        // looks at any child that has ended, from ever seeing the end of an exit test.
        let launcher = try spawn(
            "/usr/bin/setsid", ["--fork", "/bin/sh", "-c", script, directory], input: "/dev/fd/\(ends[0])",
            output: "/dev/null")
        close(ends[0])
        wait(for: launcher)
        return FileHandle(fileDescriptor: ends[1], closeOnDealloc: true)
    }

    /// Foundation's Process would wait for every descendant, so this is posix_spawn, through a shell that gives the
    /// program a session of its own and a place where every user may stand.
    private static func spawn(_ path: String, _ arguments: [String], input: String, output: String) throws -> pid_t {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT, 0o600)
        unsafe posix_spawn_file_actions_adddup2(&actions, 1, 2)
        var argv = unsafe (["/bin/sh", "-c", "cd /; exec setsid \"$0\" \"$@\"", path] + arguments).map {
            unsafe strdup($0)
        }
        defer { unsafe argv.forEach { unsafe free($0) } }
        unsafe argv.append(nil)
        var process: pid_t = 0
        let status = unsafe posix_spawn(&process, "/bin/sh", &actions, nil, argv, environ)
        guard status == 0 else { throw Failure(description: "cannot run \(path): errno \(status)") }
        return process
    }

    @discardableResult
    private static func wait(for process: pid_t) -> Int32 {
        var status: Int32 = 0
        var ended: pid_t
        repeat { ended = unsafe waitpid(process, &status, 0) } while ended < 0 && errno == EINTR
        return status
    }

    /// From below those that the system gives to whoever connects: one of them could be taken before the server has
    /// started, or while it is away.
    private static func freePort() throws -> Int {
        for _ in 0..<100 {
            let port = Int.random(in: 10_000..<32_000)
            if isFree(port) { return port }
        }
        throw Failure(description: "no free port")
    }

    private static func isFree(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                unsafe bind(descriptor, generic, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}
