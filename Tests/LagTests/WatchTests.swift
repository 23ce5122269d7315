import Foundation
import KafkaClient
import TestSupport
import Testing
import Wire

/// A terminal: a shell in a tmux session of the test's own, typed into and looked at.
private final class TerminalSession {
    private let socket = TestKafka.unique("fanout-watch")

    init(columns: Int, rows: Int) throws {
        try tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", "\(columns)", "-y", "\(rows)",
            "env PS1='ready> ' ENV= bash --norc --noprofile")
        #expect(eventually { screen.contains("ready>") }, "\(screen)")
    }

    deinit { _ = try? tmux("kill-server") }

    @discardableResult
    func tmux(_ arguments: String...) throws -> String {
        let process = try FanoutProcess(["-L", socket] + arguments, program: "tmux")
        #expect(process.waitForExit() == 0, "tmux \(arguments.joined(separator: " ")): \(process.text)")
        return process.text
    }

    func type(_ text: String) throws { try tmux("send-keys", "-l", text) }
    func press(_ key: String) throws { try tmux("send-keys", key) }
    func run(_ command: String) throws {
        try type(command)
        try press("Enter")
    }

    var screen: String { (try? tmux("capture-pane", "-p")) ?? "" }
    func screenWithColours() throws -> String { try tmux("capture-pane", "-p", "-e") }
    func ask(_ format: String) throws -> String {
        try tmux("display-message", "-p", "#{\(format)}").trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// What the shell runs now.
    func child() throws -> Int32 {
        let shell = try ask("pane_pid")
        let children = try String(contentsOfFile: "/proc/\(shell)/task/\(shell)/children", encoding: .utf8)
        return try #require(children.split(separator: " ").last.flatMap { Int32($0) })
    }

    /// The terminal is the shell's again: its screen, a cursor, an echo of what is typed.
    func expectRestored(_ earlier: String) throws {
        #expect(eventually { screen.contains(earlier) }, "\(screen)")
        #expect(eventually { (try? ask("alternate_on")) == "0" && (try? ask("cursor_flag")) == "1" })
        try type("echo is-ba''ck")
        #expect(eventually { screen.contains("echo is-ba''ck") }, "typed text is not echoed:\n\(screen)")
        try press("Enter")
        #expect(eventually { screen.contains("is-back") }, "\(screen)")
        try run("clear; echo \(earlier)")
    }
}

@Suite struct WatchTests {
    private let stage: Stage
    private let command: String

    init() throws {
        stage = try Stage()
        try stage.write(5, to: stage.names[.incoming])
        try stage.commit(stage.names.group("join"), stage.names[.incoming], 1)
        command =
            "\(FanoutProcess.binary.path) lag --watch --interval 300ms "
            + stage.options.map { "'\($0)'" }.joined(separator: " ")
    }

    @Test func `q and Ctrl-C, SIGTERM and SIGHUP give the terminal back as it was`() throws {
        let terminal = try TerminalSession(columns: 80, rows: 24)
        try terminal.run("echo before-it")
        for end in ["q", "C-c", "TERM", "HUP"] {
            try terminal.run(command)
            #expect(eventually { terminal.screen.contains("q quits") && terminal.screen.contains("chat.incoming") })
            #expect(try terminal.ask("alternate_on") == "1")
            #expect(try terminal.ask("cursor_flag") == "0")
            switch end {
            case "TERM": kill(try terminal.child(), SIGTERM)
            case "HUP": kill(try terminal.child(), SIGHUP)
            default: try terminal.press(end)
            }
            try terminal.expectRestored("before-it")
        }
    }

    @Test func `Ctrl-Z gives the terminal back, and fg takes it again`() throws {
        let terminal = try TerminalSession(columns: 80, rows: 24)
        try terminal.run("echo before-it")
        try terminal.run(command)
        #expect(eventually { terminal.screen.contains("chat.incoming") })
        try terminal.press("C-z")
        #expect(eventually { terminal.screen.contains("Stopped") }, "\(terminal.screen)")
        try terminal.expectRestored("before-it")
        try terminal.run("fg")
        #expect(eventually { terminal.screen.contains("q quits") && terminal.screen.contains("chat.incoming") })
        #expect(eventually { (try? terminal.ask("cursor_flag")) == "0" })
        try terminal.press("q")
        try terminal.expectRestored("before-it")
    }

    @Test func `the view has a graph of each stage, fits terminals of any size, and follows a change of size`() throws {
        let terminal = try TerminalSession(columns: 80, rows: 24)
        try terminal.run(command)
        #expect(eventually { terminal.screen.contains("▁") && terminal.screen.contains("█") }, "\(terminal.screen)")
        let full = terminal.screen
        #expect(full.contains("EMPTY") && full.contains("GROUP"), "\(full)")
        // EMPTY is yellow.
        #expect(try terminal.screenWithColours().contains("\u{1b}[33m"))
        for (columns, rows) in [(120, 30), (40, 10), (10, 3), (80, 24)] {
            try terminal.tmux("resize-window", "-x", "\(columns)", "-y", "\(rows)")
            // Nothing wraps: the first line is the view's first line, and the last the view's last.
            let first = String("fanout lag   ".prefix(columns)).trimmingCharacters(in: .whitespaces)
            #expect(eventually { terminal.screen.hasPrefix(first) }, "\(columns)×\(rows):\n\(terminal.screen)")
            #expect(
                eventually {
                    let lines = terminal.screen.split(separator: "\n", omittingEmptySubsequences: false)
                    return rows >= 24 || lines.dropLast().last == "…"
                }, "\(columns)×\(rows):\n\(terminal.screen)")
        }
        #expect(eventually { terminal.screen.contains("chat.incoming") })
        try terminal.press("q")
    }

    @Test func `a cluster that stops answering is said on the screen, and q still quits`() throws {
        let broker = try BrokerProcess()
        let terminal = try TerminalSession(columns: 80, rows: 24)
        try terminal.run("echo before-it")
        try terminal.run(
            "\(FanoutProcess.binary.path) lag --watch --interval 200ms --timeout 1s --kafka \(broker.address)")
        #expect(eventually { terminal.screen.contains("does not exist") }, "\(terminal.screen)")
        broker.kill()
        #expect(eventually { terminal.screen.contains("no answer from the cluster") }, "\(terminal.screen)")
        try terminal.press("q")
        try terminal.expectRestored("before-it")
    }

    @Test func `without a terminal it says so`() throws {
        let (status, text) = try FanoutProcess.run(["lag", "--watch"] + stage.options)
        #expect(status == 2 && text.contains("needs a terminal"), "\(text)")
    }
}
