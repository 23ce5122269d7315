public import Wire

/// What `fanout bench cdc` found.
public struct CDCBenchmarkReport: Sendable {
    public var changes = 0
    public var walBytes = 0
    public var seconds = 0.0
    /// Of the whole process, librdkafka's threads included.
    public var cpuSeconds = 0.0
    public var referenceSeconds = 0.0
    public var rate = 0
    public var p50Ms = 0.0
    public var p99Ms = 0.0
    public var maxMs = 0.0
    public var lost = 0
    /// One large transaction: its rows, and the time from its commit until it is confirmed.
    public var transactionRows = 0
    public var largeSeconds = 0.0
    /// Memory of the whole process before it, and at most during it.
    public var restingBytes = 0
    public var peakBytes = 0

    public var changesPerSecond: Double { seconds > 0 ? Double(changes) / seconds : 0 }
    public var changesPerCPUSecond: Double { cpuSeconds > 0 ? Double(changes) / cpuSeconds : 0 }
    public var referencePerSecond: Double { referenceSeconds > 0 ? Double(changes) / referenceSeconds : 0 }
    public var ratio: Double { referencePerSecond > 0 ? changesPerSecond / referencePerSecond : 0 }

    public var text: String {
        func rate(_ value: Double) -> String { "\(Int(value))/s" }
        func ms(_ value: Double) -> String { "\(Double(Int(value * 100)) / 100) ms" }
        let rows = [
            ("row changes", "\(changes) in \(walBytes >> 20) MiB of log"),
            ("fanout cdc, into Kafka", "\(rate(changesPerSecond)), \(rate(changesPerCPUSecond)) a CPU-second"),
            ("pg_recvlogical, to nowhere", rate(referencePerSecond)),
            ("of pg_recvlogical", "\(Int(ratio * 100)) %"),
            ("before commit → consumer", "p50 \(ms(p50Ms)), p99 \(ms(p99Ms)), max \(ms(maxMs)) at \(self.rate)/s"),
            ("lost", "\(lost)"),
            (
                "in one transaction",
                "\(transactionRows) rows, \(Double(Int(largeSeconds * 100)) / 100) s from its commit, at most \(peakBytes >> 20) MiB resident "
                    + "(\(restingBytes >> 20) before)"
            ),
        ]
        return rows.map { name, value in
            name + String(repeating: " ", count: max(1, 30 - name.count)) + value + "\n"
        }.joined()
    }

    public func write(to json: inout JSONWriter) {
        json.object {
            $0.field("changes", changes)
            $0.field("wal_bytes", walBytes)
            $0.field("changes_per_second", changesPerSecond)
            $0.field("changes_per_cpu_second", changesPerCPUSecond)
            $0.field("pg_recvlogical_per_second", referencePerSecond)
            $0.field("ratio", ratio)
            $0.field("latency_rate", rate)
            $0.field("latency_p50_ms", p50Ms)
            $0.field("latency_p99_ms", p99Ms)
            $0.field("latency_max_ms", maxMs)
            $0.field("lost", lost)
            $0.field("large_transaction_rows", transactionRows)
            $0.field("large_transaction_seconds", largeSeconds)
            $0.field("resting_bytes", restingBytes)
            $0.field("peak_bytes", peakBytes)
        }
    }
}
