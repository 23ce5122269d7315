import KafkaClient
import Lag
import Runtime
import System
import Wire

extension Command {
    static let lag = Command(
        name: "lag",
        summary: "how far every stage is behind, and whether the database's disk is in danger",
        details: """
            Seconds are exact: the age of the first record not yet consumed, read from the log.
            With --check it prints one line and ends with 0 OK, 1 warning, 2 critical, 3 unknown; wrong usage is 3 too.
            """,
        options: Option.kafka + [
            Option("postgres", .string("URL"), "also show the replication slots of this database", isSecret: true),
            Option("group", .string("REGEX"), "also show consumer groups whose name matches"),
            Option("all", .flag, "also show all other consumer groups"),
            Option("partitions", .flag, "a row for each partition"),
            Option("watch", .flag, "a live view; q quits"),
            Option("json", .flag, "one JSON object"),
            Option("check", .flag, "for monitoring: one line and an exit code"),
            Option("max-seconds", .integer(0...1_000_000_000), "check: critical above this, warning above half of it"),
            Option(
                "group-max", .keyValue,
                "NAME=DURATION that a group may be behind: join, delivery, history, push, cdc (its slot) or a whole group's name"
            ),
            Option("max-messages", .integer(0...Int.max), "check: critical above this, warning above half of it"),
            Option("prometheus", .address, "serve /metrics with the same figures"),
            Option("interval", .duration, "between two looks, from which rates are computed", standard: "1s"),
            Option("timeout", .duration, "answer within this, with what is known by then", standard: "5s"),
        ],
        cannotTell: { arguments in arguments.contains("--check") || Environment["FANOUT_CHECK"] == "true" },
        run: { invocation in
            let options = invocation.options
            try refuseWhatDoesNotCombine(options)
            let query = try query(invocation)
            let isWatching = options.flag("watch")
            if isWatching, !Terminal.isOutputTerminal || !Terminal.isInputTerminal {
                throw UsageError("--watch needs a terminal; --json or --prometheus are for programs")
            }
            // Before any thread is started, so that all of them inherit it.
            if isWatching {
                Signals.block(LagScreen.signals)
            } else if options.address("prometheus") != nil {
                Signals.block([.terminate, .interrupt])
            }
            let loop = try EventLoop()
            let observer: LagObserver
            do {
                observer = try LagObserver(query, on: loop, clock: invocation.clock)
            } catch  where options.flag("check") {
                Output.standard("UNKNOWN: \(error)\n")
                return .unknown
            }
            defer { observer.close() }
            if let address = options.address("prometheus") {
                return try serve(observer, on: loop, at: address, invocation)
            }
            if isWatching { return try watch(observer, on: loop, invocation) }
            return once(observer, on: loop, query, invocation)
        })

    private static func refuseWhatDoesNotCombine(_ options: Options) throws {
        if options.flag("check"), options.flag("json") {
            throw UsageError("--json does not go with --check, which prints one line")
        }
        // In the environment and in a file they wait for the next check.
        for limit in ["max-seconds", "max-messages"] where options.given.contains(limit) && !options.flag("check") {
            throw UsageError("--\(limit) is a limit of --check, which is not given")
        }
    }

    private static func query(_ invocation: Invocation) throws -> LagQuery {
        let options = invocation.options
        var query = LagQuery(kafka: try invocation.kafka(clientID: "fanout-lag"))
        query.names = invocation.names
        query.postgres = options.string("postgres")
        if options.flag("all") {
            query.otherGroups = { _ in true }
        } else if let pattern = options.string("group") {
            guard (try? Regex(pattern)) != nil else {
                throw UsageError("--group is not a regular expression: \(pattern)")
            }
            query.otherGroups = { name in (try? Regex(pattern)).map { name.contains($0) } ?? false }
        }
        for (name, text) in options.keyValues("group-max") {
            guard let ms = Quantity.durationMs(text) else {
                throw UsageError("--group-max \(name)=\(text): not a duration, such as 60s")
            }
            query.groupMax[name] = Double(ms) / 1000
        }
        return query
    }

    // MARK: Once

    /// Two looks, a moment apart, and the answer.
    private static func once(
        _ observer: LagObserver, on loop: EventLoop, _ query: LagQuery, _ invocation: Invocation
    ) -> ExitCode {
        let options = invocation.options
        let status = LagOnce(
            observer, on: loop, intervalMs: options.durationMs("interval") ?? 1000, timeoutMs: timeoutMs(invocation)
        ).run()
        if options.flag("check") { return check(status, query, options) }
        if options.flag("json") {
            var json = JSONWriter()
            status.write(to: &json)
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
        } else {
            var table = LagTable()
            table.showsPartitions = options.flag("partitions")
            table.usesColour = Terminal.isOutputTerminal
            table.columns = Terminal.size?.columns ?? 80
            Output.standard(table.lines(status).joined(separator: "\n") + "\n")
        }
        return status.clusterError == nil ? .success : .failure
    }

    private static func check(_ status: LagStatus, _ query: LagQuery, _ options: Options) -> ExitCode {
        var check = LagCheck()
        check.secondsMax = options.integer("max-seconds").map(Double.init)
        check.slotSecondsMax = query.groupMax["cdc"]
        for (name, seconds) in query.groupMax { check.groupSecondsMax[query.group(named: name)] = seconds }
        check.messagesMax = options.integer("max-messages").map(Int64.init)
        let (verdict, line) = check.verdict(on: status)
        Output.standard(line + "\n")
        return switch verdict {
        case .ok: .success
        case .warning: .warning
        case .critical: .critical
        case .unknown: .unknown
        }
    }

    // MARK: On and on

    private static func watch(
        _ observer: LagObserver, on loop: EventLoop, _ invocation: Invocation
    ) throws -> ExitCode {
        var table = LagTable()
        table.showsPartitions = invocation.options.flag("partitions")
        table.usesColour = true
        let screen = LagScreen(
            observer, on: loop, table: table, intervalMs: invocation.options.durationMs("interval") ?? 1000,
            timeoutMs: timeoutMs(invocation))
        try screen?.run()
        return .success
    }

    private static func serve(
        _ observer: LagObserver, on loop: EventLoop, at address: Address, _ invocation: Invocation
    ) throws -> ExitCode {
        let watch = try Signals.watch([.terminate, .interrupt], on: loop) { _ in loop.stop() }
        defer { watch.cancel() }
        let exporter = try LagExporter(
            observer, on: loop, address: address, intervalMs: invocation.options.durationMs("interval") ?? 1000,
            timeoutMs: timeoutMs(invocation), log: invocation.log)
        defer { exporter.close() }
        invocation.log.info("metrics are served", ["at": "http://\(address.host):\(exporter.port)/metrics"])
        loop.run()
        return .success
    }

    private static func timeoutMs(_ invocation: Invocation) -> Int {
        max(100, invocation.options.durationMs("timeout") ?? 5000)
    }
}

/// The codes of `--check`, which monitoring systems agree on.
extension ExitCode {
    fileprivate static let warning = ExitCode.failure
    fileprivate static let critical = ExitCode.usage
}
