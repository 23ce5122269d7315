import Runtime

extension LagStatus {
    /// The same figures as Prometheus text.
    public func metrics() -> [UInt8] {
        let metrics = Metrics()
        for row in rows {
            let labels: Metrics.Labels = [
                "group": row.group, "topic": row.topic, "partition": row.partition.map { "\($0)" } ?? "",
            ]
            metrics.gauge("fanout_lag_messages", "Records not yet consumed.", labels) { Double(row.messages) }
            if let seconds = row.seconds {
                metrics.gauge("fanout_lag_seconds", "Age of the oldest record not yet consumed.", labels) { seconds }
            }
        }
        for row in totals {
            let labels: Metrics.Labels = ["group": row.group, "topic": row.topic]
            metrics.gauge("fanout_lag_state", "0 OK, 1 BEHIND, 2 EMPTY, 3 STALLED, 4 DANGER.", labels) {
                Double(LagState.allCases.firstIndex(of: row.state) ?? 0)
            }
            if let members = row.members {
                metrics.gauge("fanout_lag_members", "Members of the group.", labels) { Double(members) }
            }
        }
        for (slot, _) in slots {
            let labels: Metrics.Labels = ["slot": slot.name]
            metrics.gauge("fanout_slot_active", "Whether somebody reads the slot.", labels) { slot.isActive ? 1 : 0 }
            metrics.gauge("fanout_slot_retained_bytes", "WAL kept for the slot.", labels) { Double(slot.retainedBytes) }
            if let safe = slot.safeBytes {
                metrics.gauge("fanout_slot_safe_bytes", "WAL that may be written before the slot is lost.", labels) {
                    Double(safe)
                }
            }
        }
        for instance in instances {
            let labels: Metrics.Labels = ["instance_name": instance.name]
            metrics.gauge("fanout_instance_connections", "Devices connected to a chat server.", labels) {
                Double(instance.connections)
            }
            metrics.gauge("fanout_instance_heartbeat_age_seconds", "Since its last announcement.", labels) {
                Double(instance.heartbeatAgeMs) / 1000
            }
        }
        let missing = missing.count
        metrics.gauge("fanout_lag_missing", "What could not be learned in time.") { Double(missing) }
        return metrics.render()
    }
}
