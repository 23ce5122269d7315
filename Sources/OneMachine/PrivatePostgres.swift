import PostgresClient
import Runtime
import System

/// A Postgres cluster of our own: made with the installed server's programs, run as an unprivileged user when we are
/// root (Postgres refuses root), reachable over loopback with a password only.
struct PrivatePostgres {
    let data: String
    let programs: String
    let user: (id: UInt32, group: UInt32)?
    let port: UInt16
    let password: String
    let logFile: String

    /// - Parameter installations: where the servers are, by version, as Debian's packages put them.
    init(
        data: String, port: UInt16, password: String, logs: String, installations: String = "/usr/lib/postgresql"
    ) throws {
        self.data = data
        self.port = port
        self.password = password
        logFile = logs + "/postgres.log"
        programs = try Self.findPrograms(for: data, in: installations)
        guard CurrentProcess.isRoot else {
            user = nil
            return
        }
        guard let found = CurrentProcess.user(named: "postgres") ?? CurrentProcess.user(named: "nobody") else {
            throw OneMachineError(
                .missingServer, "Postgres refuses to run as root, and there is no user postgres to run it as")
        }
        user = found
    }

    var url: String { Self.url(port: port, password: password) }
    static func url(port: UInt16, password: String) -> String {
        "postgres://fanout:\(password)@127.0.0.1:\(port)/fanout"
    }
    var shownURL: String { "postgres://fanout@127.0.0.1:\(port)/fanout" }

    /// Makes the cluster on the first start.
    ///
    /// - Parameter pause: called while that takes its time; says whether to go on.
    func prepare(pause: @escaping () -> Bool) throws {
        if File.exists(data + "/PG_VERSION") { return }
        if Directory.isDirectory(data) { try Directory.removeAll(data) }
        try Directory.create(data, permissions: 0o700)
        if let user { try File.setOwner(data, user: user.id, group: user.group) }
        let passwordFile = data + ".password"
        try File.replaceAtomically(passwordFile, with: password + "\n", permissions: 0o600)
        defer { try? File.remove(passwordFile) }
        if let user { try File.setOwner(passwordFile, user: user.id, group: user.group) }
        var options = ChildProcess.Options()
        options.user = user
        options.workingDirectory = "/"
        options.ownGroup = true
        let made = try ChildProcess.run(
            programs + "/initdb",
            [
                "--pgdata", data, "--username", "fanout", "--pwfile", passwordFile, "--auth", "scram-sha-256",
                "--encoding", "UTF8", "--no-locale", "--no-instructions",
            ], options: options, pause: pause)
        guard made.exit.isSuccess else {
            let reason =
                made.error.split(separator: "\n").last.map(String.init) ?? "no reason given"
            // The usual cause: a directory above is closed to the user that Postgres runs as.
            throw OneMachineError(
                .directory,
                "Postgres cannot make its data directory \(data): \(reason); choose another place with --dir")
        }
    }

    func start() throws -> ChildProcess {
        var options = ChildProcess.Options()
        options.user = user
        options.workingDirectory = "/"
        options.ownGroup = true
        options.output = .file(logFile)
        options.error = .file(logFile)
        // Fast shutdown: sessions are ended, the next start needs no recovery.
        options.dieWithParent = .interrupt
        if let user {
            if !File.exists(logFile) { try File.replaceAtomically(logFile, with: "") }
            try File.setOwner(logFile, user: user.id, group: user.group)
        }
        let settings = [
            "listen_addresses=127.0.0.1", "port=\(port)", "unix_socket_directories=", "wal_level=logical",
            "max_replication_slots=10", "max_wal_senders=10", "max_slot_wal_keep_size=4GB",
            "shared_buffers=\(Self.bufferMiB((try? File.text(of: "/proc/meminfo")) ?? ""))MB",
        ]
        return try ChildProcess(
            programs + "/postgres", ["-D", data] + settings.flatMap { ["-c", $0] }, options: options)
    }

    /// What a backend does not find here it copies in from the system's cache and, with as much as History changes, writes
    /// another page out first: that was a quarter of storing and half of the conversation list over 10 M messages. An eighth
    /// of the machine's memory, which is taken only as it is used.
    static func bufferMiB(_ memoryInfo: String) -> Int {
        let total = memoryInfo.split(separator: "\n").first { $0.hasPrefix("MemTotal:") }
        let kilobytes = total.flatMap { $0.split(separator: " ").dropFirst().first }.flatMap { Int($0) } ?? 0
        return min(1024, max(128, kilobytes / 1024 / 8))
    }

    /// Waits until it answers, and makes the database on the first start.
    ///
    /// - Parameter pause: lets a moment pass; says whether the server still runs.
    func waitUntilReady(clock: any Clock, timeoutMs: Int, pause: () throws -> Bool) throws {
        let deadline = clock.monotonicNs + UInt64(timeoutMs) * 1_000_000
        let maintenance = "postgres://fanout:\(password)@127.0.0.1:\(port)/postgres"
        while true {
            do {
                var connection = try PostgresConnection(maintenance)
                let found = try connection.query("SELECT 1 FROM pg_database WHERE datname = 'fanout'")
                if found.isEmpty { _ = try connection.execute("CREATE DATABASE fanout") }
                return
            } catch {
                guard clock.monotonicNs < deadline else {
                    throw OneMachineError(.notReady, "Postgres does not answer: \(error); \(logFile) may say why")
                }
                guard try pause() else { throw OneMachineError(.failed, "Postgres ended at once; \(logFile) says why") }
            }
        }
    }

    /// The programs of the version that the data was made with, or of the newest installed.
    private static func findPrograms(for data: String, in root: String) throws -> String {
        let installed = ((try? Directory.list(root)) ?? []).filter {
            File.isExecutable("\(root)/\($0)/bin/initdb") && File.isExecutable("\(root)/\($0)/bin/postgres")
        }
        if let version = try? File.text(of: data + "/PG_VERSION") {
            let wanted = String(version.prefix { $0 != "\n" })
            guard installed.contains(wanted) else {
                throw OneMachineError(
                    .otherVersion,
                    "\(data) was made by Postgres \(wanted), which is not installed; install postgresql-\(wanted), or choose another directory with --dir"
                )
            }
            return "\(root)/\(wanted)/bin"
        }
        guard let newest = installed.max(by: { (Int($0) ?? 0) < (Int($1) ?? 0) }) else {
            throw OneMachineError(
                .missingServer,
                "no Postgres server found under \(root); install one (apt-get install postgresql), or use another with --postgres URL"
            )
        }
        return "\(root)/\(newest)/bin"
    }
}
