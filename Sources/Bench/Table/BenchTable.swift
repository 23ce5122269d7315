internal import Runtime
public import Wire

/// The targets of the project, and what was measured against each: what `fanout bench all` prints.
public struct BenchTable: Sendable {
    public enum Target: Sendable {
        case atLeast(Double)
        case atMost(Double)
    }

    /// One target: which benchmark measures it, and where in its JSON the figure stands.
    public struct Row: Sendable {
        let what: String
        let run: String
        let figure: @Sendable (Figures) -> Double?
        let target: Target
        let unit: String

        init(
            _ what: String, _ run: String, _ path: String, _ target: Target, _ unit: String = "", scale: Double = 1
        ) {
            self.init(what, run, target, unit) { $0[path].map { $0 * scale } }
        }

        init(
            _ what: String, _ run: String, _ target: Target, _ unit: String = "",
            figure: @escaping @Sendable (Figures) -> Double?
        ) {
            (self.what, self.run, self.target, self.unit, self.figure) = (what, run, target, unit, figure)
        }
    }

    struct Measured: Sendable {
        let row: Row
        /// nil: the benchmark failed or did not say.
        let value: Double?

        var isMet: Bool {
            guard let value else { return false }
            switch row.target {
            case .atLeast(let bound): return value >= bound
            case .atMost(let bound): return value <= bound
            }
        }
    }

    public let machine: String
    private(set) var measured: [Measured] = []
    private(set) var failures: [(run: String, reason: String)] = []

    init(machine: String) { self.machine = machine }

    mutating func take(_ figures: Figures, of run: String) {
        for row in Self.rows where row.run == run { measured.append(Measured(row: row, value: row.figure(figures))) }
    }

    mutating func fail(_ run: String, _ reason: String) {
        failures.append((run, reason))
        for row in Self.rows where row.run == run { measured.append(Measured(row: row, value: nil)) }
    }

    public var isMet: Bool { failures.isEmpty && measured.allSatisfy(\.isMet) }

    static let rows: [Row] = [
        Row("fan-out at saturation", "saturation", "deliveries_per_second", .atLeast(500_000), "/s"),
        Row("  a CPU-second of all processes", "saturation", "deliveries_per_cpu_second", .atLeast(470_000), "/s"),
        Row("fan-out at 20,000/s, p50", "fan-out", "p50_ms", .atMost(1.5), "ms"),
        Row("  p99", "fan-out", "p99_ms", .atMost(5), "ms"),
        Row("  a CPU-second", "fan-out", "deliveries_per_cpu_second", .atLeast(75_000), "/s"),
        Row("1:1 at 2,000 messages/s, p50", "pairs", "p50_ms", .atMost(1), "ms"),
        Row("  p99", "pairs", "p99_ms", .atMost(4), "ms"),
        Row("  a CPU-second", "pairs", "deliveries_per_cpu_second", .atLeast(11_000), "/s"),
        Row("reconnect storm: all are back", "storm", "seconds", .atMost(5), "s"),
        Row("  devices", "storm", "devices", .atLeast(19_000)),
        Row("  events missed for good", "storm", "lost", .atMost(0)),
        Row("idle WebSocket", "sockets", "idle_bytes_per_connection", .atMost(1536), "B"),
        Row("  connects a CPU-second", "sockets", "connects_per_cpu_second", .atLeast(10_000), "/s"),
        Row("  fan-out of the rate of plain send", "sockets", .atLeast(60), "%") { figures in
            guard let ours = figures["deliveries_per_cpu_second"], let plain = figures["plain_sends_per_cpu_second"]
            else { return nil }
            return 100 * ours / plain
        },
        Row("delivery worker, in memory", "delivery", oneServer + "deliveries routed.value", .atLeast(500_000), "/s"),
        Row(
            "  added latency, p50", "delivery", oneServer + "added latency, median.value", .atMost(0.3), "ms",
            scale: 1e-3),
        Row("  registering 100,000 sessions", "delivery", "100000 sessions registered.value", .atMost(2000), "ms"),
        Row("  memory a session", "delivery", "memory a session.value", .atMost(120), "B"),
        Row("join, in memory: recipients", "join", .atLeast(1_000_000), "/s") {
            rate($0, "rows.recipients out, chats of 100, from memory")
        },
        Row("  messages, chats of 2", "join", .atLeast(200_000), "/s") {
            rate($0, "rows.messages in, chats of 2, from memory")
        },
        Row("  table, a membership", "join", .atMost(16), "B") { ratio($0["table_bytes"], $0["memberships"], 1) },
        Row("  10 M memberships from a checkpoint", "join", loaded + ".seconds", .atMost(1), "s"),
        Row("broker: produce, 200 B", "broker", "produced_per_second", .atLeast(400_000), "/s"),
        Row("  consume", "broker", "consumed_per_second", .atLeast(250_000), "/s"),
        Row("  one record, acks=all, p50", "broker", "latency_p50_us", .atMost(0.5), "ms", scale: 1e-3),
        Row("  resident after that", "broker", "resident_bytes_broker", .atMost(64), "MiB", scale: 1.0 / 1_048_576),
        Row("  ready after", "broker", "ready_ms", .atMost(200), "ms"),
        Row("Kafka client of librdkafka's: produce", "kafka", .atLeast(90), "%") {
            ratio($0["produce_per_second"], $0["bare_produce_per_second"], 100)
        },
        Row("  consume", "kafka", .atLeast(90), "%") {
            ratio($0["consume_per_second"], $0["bare_consume_per_second"], 100)
        },
        Row("CDC: row changes", "cdc", "changes_per_second", .atLeast(100_000), "/s"),
        Row("  of pg_recvlogical", "cdc", "ratio", .atLeast(60), "%", scale: 100),
        Row("  commit to consumer at 1,000/s, p99", "cdc", "latency_p99_ms", .atMost(20), "ms"),
        Row("history: stored", "history", "stored_per_second", .atLeast(50_000), "/s"),
        Row("  page of 50, p50", "history", "reads.page of 50, before.p50_ms", .atMost(2), "ms"),
        Row("  conversation list, p50", "history", "reads.conversation list of 50.p50_ms", .atMost(5), "ms"),
        Row("lag: 10,000 partitions, 20 groups", "lag", "look_ms.0", .atMost(2000), "ms"),
        Row("push: one a request", "push", "told.0.notices_per_second", .atLeast(20_000), "/s"),
        Row("  twenty a request", "push", "told.1.notices_per_second", .atLeast(20_000), "/s"),
        Row("fanout up: ready, warm", "up", "ready_ms", .atMost(3000), "ms"),
    ]

    private static let oneServer = "10 groups × 100, 1 chat server: "
    private static let loaded = "rows.memberships loaded from a checkpoint"

    private static func ratio(_ ours: Double?, _ other: Double?, _ scale: Double) -> Double? {
        guard let ours, let other, other > 0 else { return nil }
        return scale * ours / other
    }

    private static func rate(_ figures: Figures, _ row: String) -> Double? {
        ratio(figures[row + ".count"], figures[row + ".seconds"], 1)
    }

    // MARK: Printing

    public var text: String {
        var lines = [machine, ""]
        for entry in measured {
            let target =
                switch entry.row.target {
                case .atLeast(let bound): "≥ " + Self.number(bound)
                case .atMost(let bound): "≤ " + Self.number(bound)
                }
            let value = entry.value.map(Self.number) ?? "–"
            lines.append(
                entry.row.what.padded(to: 38) + value.padded(to: 12, alignedRight: true) + " "
                    + entry.row.unit.padded(to: 4) + target.padded(to: 12, alignedRight: true) + "  "
                    + (entry.isMet ? "met" : "missed"))
        }
        for failure in failures { lines.append("\(failure.run): \(failure.reason)") }
        return lines.joined(separator: "\n") + "\n"
    }

    public func write(to json: inout JSONWriter) {
        json.object { json in
            json.field("machine", machine)
            json.name("rows")
            json.array { json in
                for entry in measured {
                    json.object {
                        $0.field("what", entry.row.what)
                        $0.field("run", entry.row.run)
                        if let value = entry.value { $0.field("value", value) }
                        switch entry.row.target {
                        case .atLeast(let bound): $0.field("at_least", bound)
                        case .atMost(let bound): $0.field("at_most", bound)
                        }
                        $0.field("unit", entry.row.unit)
                        $0.field("met", entry.isMet)
                    }
                }
            }
        }
    }

    /// 512,345 or 1.23.
    static func number(_ value: Double) -> String {
        guard value < 100 else {
            var digits = String(Int(value.rounded()))
            var groups: [String] = []
            while digits.count > 3 {
                groups.insert(String(digits.suffix(3)), at: 0)
                digits.removeLast(3)
            }
            return ([digits] + groups).joined(separator: ",")
        }
        return value == value.rounded() ? "\(Int(value))" : RunReport.rounded(value, 2)
    }
}
