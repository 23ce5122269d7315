import Foundation
import TestSupport
import Testing

/// The whole system as `fanout up` runs it, in a temporary directory, on free ports.
final class RunningSystem: Sendable {
    let directory: String
    let up: FanoutProcess
    let chatPort: Int
    let kafka: String
    let postgres: String
    let tokenKey: String

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// - Parameter directory: one that an earlier start left; a fresh one otherwise.
    init(directory: String? = nil, arguments: [String] = []) throws {
        // Postgres runs as another user when the test runs as root, so the directory must let it through.
        let directory = try directory ?? Self.makeDirectory()
        self.directory = directory
        up = try FanoutProcess(
            ["up", "--dir", directory, "--port", "0", "--kafka-port", "0", "--postgres-port", "0", "--partitions", "4"]
                + arguments)
        guard up.waitForOutput("Ctrl-C stops everything", seconds: 60) else {
            throw Failure(description: "fanout up is not ready:\n\(up.text)")
        }
        let screen = up.text
        guard let chat = screen.firstMatch(of: #/http://127\.0\.0\.1:(\d+)/ /#),
            let kafka = screen.firstMatch(of: #/log +(127\.0\.0\.1:\d+)/#),
            let postgres = screen.firstMatch(of: #/postgres://fanout@(127\.0\.0\.1:\d+)/fanout/#)
        else { throw Failure(description: "unreadable screen:\n\(screen)") }
        chatPort = Int(chat.1) ?? 0
        self.kafka = String(kafka.1)
        let secrets = try Self.secrets(directory)
        tokenKey = secrets["token-key"] ?? ""
        self.postgres = "postgres://fanout:\(secrets["postgres-password"] ?? "")@\(postgres.1)/fanout"
    }

    deinit { up.terminate() }

    /// Ends it as Ctrl-C does.
    func stop() -> Int32? {
        up.signal(SIGINT)
        return up.waitForExit(seconds: 30)
    }

    func bench(_ arguments: [String]) throws -> (status: Int32?, text: String) {
        try FanoutProcess.run(
            ["bench", "load", "--target", "127.0.0.1:\(chatPort)"] + arguments,
            environment: ["FANOUT_POSTGRES": postgres, "FANOUT_TOKEN_KEY": tokenKey], seconds: 120)
    }

    static func remove(_ directory: String) { try? FileManager.default.removeItem(atPath: directory) }

    /// Everybody that it has started, and whom they have.
    var processes: [Relative] { Relative.descendants(of: up.pid) }

    static func makeDirectory() throws -> String {
        let path = NSTemporaryDirectory() + "fanout-up-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o711])
        return path
    }

    private static func secrets(_ directory: String) throws -> [String: String] {
        var values: [String: String] = [:]
        for line in try String(contentsOfFile: directory + "/secrets", encoding: .utf8).split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1)
            if parts.count == 2 { values[String(parts[0])] = String(parts[1]) }
        }
        return values
    }
}

/// A process below another, told apart from a later one with the same number by when it was started.
struct Relative {
    let id: pid_t
    let command: String
    private let startTime: String

    private init?(_ id: pid_t) {
        guard let startTime = Self.startTime(of: id) else { return nil }
        self.id = id
        self.startTime = startTime
        let line = (try? String(contentsOfFile: "/proc/\(id)/cmdline", encoding: .utf8)) ?? ""
        command = line.replacing("\0", with: " ")
    }

    var isAlive: Bool { Self.startTime(of: id) == startTime }

    static func descendants(of id: pid_t) -> [Relative] {
        let children = (try? String(contentsOfFile: "/proc/\(id)/task/\(id)/children", encoding: .utf8)) ?? ""
        return children.split(separator: " ").compactMap { pid_t($0) }.flatMap { child in
            [Relative(child)].compactMap { $0 } + descendants(of: child)
        }
    }

    /// `nil` for one that is gone, or only waits to be collected.
    private static func startTime(of id: pid_t) -> String? {
        guard let stat = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8),
            let end = stat.lastIndex(of: ")")
        else { return nil }
        let fields = stat[end...].split(separator: " ")
        return fields.count > 20 && fields[1] != "Z" ? String(fields[20]) : nil
    }
}
