import KafkaClient
import Lag
import Runtime
import Synchronization
import System
import Wire

extension Command {
    static let lag = Command(
        name: "lag",
        summary: "how far every stage is behind, and whether the database's disk is in danger",
        details: """
            Seconds are exact: the age of the first record not yet consumed, read from the log.
            With --check it prints one line and ends with 0 OK, 1 warning, 2 critical, 3 unknown.
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
            Option("max-messages", .integer(0...Int.max), "check: critical above this, warning above half of it"),
            Option("prometheus", .address, "serve /metrics with the same figures"),
            Option("interval", .duration, "between two looks, from which rates are computed", standard: "1s"),
            Option("timeout", .duration, "answer within this, with what is known by then", standard: "5s"),
        ],
        run: { invocation in
            let options = invocation.options
            var query = LagQuery(kafka: try invocation.kafka(clientID: "fanout-lag"))
            query.names = invocation.names
            query.postgres = options.string("postgres")
            query.timeoutMs = options.durationMs("timeout") ?? 5000
            if options.flag("all") {
                query.otherGroups = { _ in true }
            } else if let pattern = options.string("group") {
                guard (try? Regex(pattern)) != nil else {
                    throw UsageError("--group is not a regular expression: \(pattern)")
                }
                query.otherGroups = { name in (try? Regex(pattern)).map { name.contains($0) } ?? false }
            }
            let isCheck = options.flag("check")
            do {
                let collector = try LagCollector(query, clock: invocation.clock)
                defer { collector.close() }
                if let address = options.address("prometheus") { return try serve(collector, at: address, invocation) }
                if options.flag("watch") { return try watch(collector, invocation) }
                return try once(collector, query, invocation)
            } catch let error as KafkaError {
                Output.error("fanout lag: UNKNOWN: \(error)\n")
                return isCheck ? .unknown : .failure
            }
        })

    /// Two looks, a moment apart, and the answer.
    private static func once(
        _ collector: LagCollector, _ query: LagQuery, _ invocation: Invocation
    ) throws -> ExitCode {
        let options = invocation.options
        let startedNs = invocation.clock.monotonicNs
        let first = try collector.sample()
        let usedMs = Int((invocation.clock.monotonicNs - startedNs) / 1_000_000)
        // A cluster too large for two looks in time gets one, without rates.
        let pauseMs = min(options.durationMs("interval") ?? 1000, query.timeoutMs - 2 * usedMs)
        var status = LagStatus(before: nil, now: first)
        if pauseMs > 0 {
            let loop = try EventLoop()
            loop.schedule(afterMs: pauseMs) { loop.stop() }
            loop.run()
            loop.close()
            status = LagStatus(before: first, now: try collector.sample())
        }
        if options.flag("check") {
            var check = LagCheck()
            check.secondsMax = options.integer("max-seconds").map(Double.init)
            check.messagesMax = options.integer("max-messages").map(Int64.init)
            let (verdict, line) = check.verdict(on: status)
            Output.standard(line + "\n")
            switch verdict {
            case .ok: return .success
            case .warning: return .failure
            case .critical: return .usage
            case .unknown: return .unknown
            }
        }
        if options.flag("json") {
            var json = JSONWriter()
            status.write(to: &json)
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
            return .success
        }
        var table = LagTable()
        table.showsPartitions = options.flag("partitions")
        table.usesColour = Terminal.isOutputTerminal
        Output.standard(table.lines(status).joined(separator: "\n") + "\n")
        return .success
    }

    private static func watch(_ collector: LagCollector, _ invocation: Invocation) throws -> ExitCode {
        guard Terminal.isOutputTerminal, let keys = Terminal.readKeys() else {
            throw UsageError("--watch needs a terminal; --json or --prometheus are for programs")
        }
        var view = LagWatch()
        var table = LagTable()
        table.showsPartitions = invocation.options.flag("partitions")
        table.usesColour = true
        var before: LagSample?
        Output.standard("\u{1b}[?1049h\u{1b}[?25l")
        defer { Output.standard("\u{1b}[?25h\u{1b}[?1049l") }
        while true {
            var lines: [String]
            let size = Terminal.size ?? (columns: 80, rows: 24)
            do {
                let now = try collector.sample()
                let status = LagStatus(before: before, now: now)
                before = now
                view.add(status)
                lines = view.screen(status, table: table, columns: size.columns, rows: size.rows)
            } catch {
                lines = ["fanout lag   q quits", "", String("\(error)".prefix(size.columns))]
            }
            Output.standard("\u{1b}[H" + lines.map { $0 + "\u{1b}[K" }.joined(separator: "\r\n") + "\u{1b}[J")
            let key = keys.nextKey(timeoutMs: invocation.options.durationMs("interval") ?? 1000)
            if key == UInt8(ascii: "q") || key == 3 { return .success }
        }
    }

    private static func serve(
        _ collector: LagCollector, at address: Address, _ invocation: Invocation
    ) throws -> ExitCode {
        let text = LatestText()
        let loop = try EventLoop()
        let server = try MetricsServer(on: loop, address: address, render: { text.value })
        defer { server.close() }
        invocation.log.info("metrics are served", ["at": "http://\(address.host):\(server.port)/metrics"])
        Signals.block([.terminate, .interrupt])
        var isEnding = false
        let watch = try Signals.watch([.terminate, .interrupt], on: loop) { _ in isEnding = true }
        defer { watch.cancel() }
        var before: LagSample?
        let intervalNs = UInt64(invocation.options.durationMs("interval") ?? 1000) * 1_000_000
        var nextNs: UInt64 = 0
        while !isEnding {
            if invocation.clock.monotonicNs >= nextNs {
                nextNs = invocation.clock.monotonicNs + intervalNs
                do {
                    let now = try collector.sample()
                    text.set(LagStatus(before: before, now: now).metrics())
                    before = now
                } catch {
                    invocation.log.warning("no answer", ["error": "\(error)"])
                }
            }
            loop.runOnce(timeoutMs: 50)
        }
        return .success
    }
}

/// What the last look found, as Prometheus text.
private final class LatestText: Sendable {
    private let text = Mutex<[UInt8]>([])
    var value: [UInt8] { text.withLock { $0 } }
    func set(_ new: [UInt8]) { text.withLock { $0 = new } }
}
