import Runtime
import System

/// Finds the command, reads its options, runs it, and says in one line what went wrong.
struct CommandLineFrame {
    static let version = "0.1.0"

    let commands: [Command]

    func run(_ arguments: [String]) -> ExitCode {
        guard let first = arguments.first else {
            Output.error(overview)
            return .usage
        }
        switch first {
        case "--help", "-h", "help":
            if let name = arguments.dropFirst().first, let command = find(name) {
                Output.standard(help(command))
            } else {
                Output.standard(overview)
            }
            return .success
        case "--version", "-V", "version":
            Output.standard("fanout \(Self.version)\n")
            return .success
        default: break
        }
        guard let command = find(first) else {
            Output.error("fanout: unknown command '\(first)'; fanout --help lists them\n")
            return .usage
        }
        if arguments.contains("--help") || arguments.contains("-h") {
            Output.standard(help(command))
            return .success
        }
        do {
            return try run(command, Array(arguments.dropFirst()))
        } catch  where command.cannotTell(arguments) {
            Output.standard("UNKNOWN: fanout \(command.name): \(error)\n")
            return .unknown
        } catch let error as UsageError {
            Output.error("fanout \(command.name): \(error); fanout \(command.name) --help lists the options\n")
            return .usage
        } catch {
            Output.error("fanout \(command.name): \(error)\n")
            return .failure
        }
    }

    private func run(_ command: Command, _ arguments: [String]) throws -> ExitCode {
        // The file's name may itself come from a flag or the environment.
        let environment = Environment.all
        let every = commands.flatMap(\.allOptions)
        var options = try Options(command.allOptions, arguments: arguments, environment: environment)
        if let path = options.string("config") {
            let text: String
            do { text = try File.text(of: path) } catch { throw UsageError("--config: \(error)") }
            options = try Options(
                command.allOptions, arguments: arguments, environment: environment, file: (path, text), known: every)
        }
        if command.operands.isEmpty, let extra = options.operands.first {
            throw UsageError("unexpected argument '\(extra)'")
        }
        let level = Log.Level.allCases.first { $0.name == options.string("log-level") } ?? .info
        let format = options.string("log-format").flatMap(Log.Format.init) ?? .text
        let clock = SystemClock()
        let log = Log(component: command.name, level: level, format: format, clock: clock) {
            Output.write($0.span, to: 2)
        }
        return try command.run(
            Invocation(command: command, options: options, log: log, metrics: Metrics(), clock: clock))
    }

    private func find(_ name: String) -> Command? { commands.first { $0.name == name } }

    // MARK: Help

    private var overview: String {
        let width = commands.map(\.name.utf8.count).max() ?? 0
        let list = commands.map { "  \($0.name.padded(to: width))  \($0.summary)\n" }.joined()
        return """
            Fanout carries chat messages from one sender to every device of every member.

            usage: fanout COMMAND [--option VALUE]…

            \(list)
            fanout COMMAND --help shows a command's options. Every option can also be set as FANOUT_OPTION_NAME
            in the environment or as a line option-name = value in the file named by --config.

            """
    }

    private func help(_ command: Command) -> String {
        let rows = command.allOptions.map { option in
            let value = option.placeholder.map { " \($0)" } ?? ""
            let standard = option.standard.map { " (\($0))" } ?? ""
            return (left: "--\(option.name)\(value)", right: option.help + standard)
        }
        // A long left column gets a line of its own instead of pushing all others aside.
        let width = min(rows.map { $0.left.count }.max() ?? 0, 30)
        let list = rows.map { row in
            row.left.count > width
                ? "  \(row.left)\n  \("".padded(to: width))  \(row.right)\n"
                : "  \(row.left.padded(to: width))  \(row.right)\n"
        }.joined()
        let operands = command.operands.isEmpty ? "" : " \(command.operands)"
        let details = command.details.isEmpty ? "" : "\n\(command.details)\n"
        return """
            \(command.summary)

            usage: fanout \(command.name)\(operands) [--option VALUE]…
            \(details)
            \(list)
            """
    }
}
