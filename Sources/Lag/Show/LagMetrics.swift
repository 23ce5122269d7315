/// The figures as Prometheus text. Written by hand and not through `Metrics`: which series there are changes with every
/// look, and what is gone must be gone from the next scrape.
extension LagStatus {
    public func metrics() -> [UInt8] {
        var text = PrometheusText()
        for row in rows {
            let labels = [
                ("group", row.group), ("topic", row.topic), ("partition", row.partition.map(String.init) ?? ""),
            ]
            text.add("fanout_lag_messages", "Records not yet consumed.", labels, Double(row.messages))
            text.add("fanout_lag_seconds", "Age of the oldest record not yet consumed.", labels, row.seconds)
            text.add(
                "fanout_lag_commit_age_seconds", "Since the group last committed here.", labels, row.commitAgeSeconds)
            text.add(
                "fanout_lag_clamped", "1 where the commit lies outside of the log.", labels, row.isClamped ? 1 : 0)
            if let owner = row.owner {
                text.add(
                    "fanout_lag_owner", "Always 1: which member of the group has the partition.",
                    labels + [("member", owner.name), ("host", owner.host)], 1)
            }
        }
        for row in totals {
            let labels = [("group", row.group), ("topic", row.topic)]
            text.add(
                "fanout_lag_state", "0 OK, 1 BEHIND, 2 EMPTY, 3 STALLED, 4 DANGER.", labels,
                Double(LagState.allCases.firstIndex(of: row.state) ?? 0))
            text.add("fanout_lag_members", "Members of the group.", labels, row.members.map(Double.init))
            text.add("fanout_lag_written_per_second", "Records written to the topic.", labels, row.rateIn)
            text.add("fanout_lag_consumed_per_second", "Records that the group committed.", labels, row.rateOut)
            if row.rateIn != nil {
                text.add(
                    "fanout_lag_catch_up_seconds", "Until nothing waits at these rates; +Inf for never.", labels,
                    row.catchUpSeconds ?? .infinity)
            }
        }
        for (slot, state) in slots {
            let labels = [("slot", slot.name)]
            text.add("fanout_slot_active", "Whether somebody reads the slot.", labels, slot.isActive ? 1 : 0)
            text.add("fanout_slot_retained_bytes", "WAL kept for the slot.", labels, Double(slot.retainedBytes))
            text.add(
                "fanout_slot_safe_bytes", "WAL that may be written before the slot is lost.", labels,
                slot.safeBytes.map(Double.init))
            text.add("fanout_slot_behind_seconds", "How late the slot's reader confirms.", labels, slot.lateSeconds)
            text.add(
                "fanout_slot_confirmed_age_seconds", "Age of the slot's confirmed position, by the database's clock.",
                labels, slot.confirmedAgeSeconds)
            text.add(
                "fanout_slot_wal_status", "Always 1: Postgres' wal_status of the slot.",
                labels + [("wal_status", slot.walStatus)], 1)
            text.add(
                "fanout_slot_state", "0 OK, 1 BEHIND, 2 EMPTY, 3 STALLED, 4 DANGER.", labels,
                Double(LagState.allCases.firstIndex(of: state) ?? 0))
        }
        for instance in instances {
            let labels = [("instance_name", instance.name)]
            text.add(
                "fanout_instance_connections", "Devices connected to a chat server.", labels,
                Double(instance.connections))
            text.add(
                "fanout_instance_draining", "1 while a chat server takes no new sessions.", labels,
                instance.isDraining ? 1 : 0)
            text.add(
                "fanout_instance_heartbeat_age_seconds", "Since its last announcement.", labels,
                Double(instance.heartbeatAgeMs) / 1000)
        }
        text.add("fanout_lag_missing", "What could not be learned in time.", [], Double(missing.count))
        text.add("fanout_lag_up", "Whether the cluster answered the last look.", [], clusterError == nil ? 1 : 0)
        return text.bytes
    }
}

/// Families in the order of their first sample, each family's samples together, as the format wants it.
struct PrometheusText {
    private var order: [String] = []
    private var families: [String: [UInt8]] = [:]

    /// A value that is not known makes no sample.
    mutating func add(_ name: String, _ help: String, _ labels: [(String, String)], _ value: Double?) {
        guard let value else { return }
        if families[name] == nil {
            order.append(name)
            families[name] = Array("# HELP \(name) \(help)\n# TYPE \(name) gauge\n".utf8)
        }
        let list = labels.map { "\($0.0)=\"\(Self.escaped($0.1))\"" }.joined(separator: ",")
        families[name]?.append(contentsOf: "\(name)\(list.isEmpty ? "" : "{\(list)}") \(Self.shown(value))\n".utf8)
    }

    var bytes: [UInt8] { order.flatMap { families[$0] ?? [] } }

    private static func escaped(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 == 0x5c || $0 == 0x22 || $0 == 0x0a }) else { return text }
        return text.map { $0 == "\\" ? "\\\\" : $0 == "\"" ? "\\\"" : $0 == "\n" ? "\\n" : String($0) }.joined()
    }

    private static func shown(_ value: Double) -> String {
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        return value == value.rounded() && value.magnitude < 1e15 ? "\(Int64(value))" : "\(value)"
    }
}
