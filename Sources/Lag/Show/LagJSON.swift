public import Wire

extension LagStatus {
    /// One object, documented in docs/lag.md; fields are only ever added.
    public func write(to json: inout JSONWriter) {
        json.object {
            $0.field("ts", takenMs)
            $0.field("state", clusterError == nil ? worst.rawValue : "UNKNOWN")
            $0.name("totals")
            $0.array { json in for row in totals { row.write(to: &json) } }
            $0.name("partitions")
            $0.array { json in for row in rows { row.write(to: &json) } }
            $0.name("slots")
            $0.array { json in
                for (slot, state) in slots {
                    json.object {
                        $0.field("name", slot.name)
                        $0.field("active", slot.isActive)
                        $0.field("confirmed", slot.confirmed)
                        $0.field("retained_bytes", slot.retainedBytes)
                        $0.optional("safe_bytes", slot.safeBytes.map(Double.init))
                        $0.field("wal_status", slot.walStatus)
                        $0.optional("behind_seconds", slot.lateSeconds)
                        $0.optional("confirmed_age_seconds", slot.confirmedAgeSeconds)
                        $0.field("state", state.rawValue)
                    }
                }
            }
            $0.name("instances")
            $0.array { json in
                for instance in instances {
                    json.object {
                        $0.field("instance", instance.name)
                        $0.field("connections", instance.connections)
                        $0.field("draining", instance.isDraining)
                        $0.field("heartbeat_age_ms", instance.heartbeatAgeMs)
                    }
                }
            }
            if let clusterError { $0.field("error", clusterError) } else { $0.nullField("error") }
            $0.name("missing")
            $0.array { json in for line in missing { json.value(line) } }
        }
    }
}

extension LagRow {
    fileprivate func write(to json: inout JSONWriter) {
        json.object {
            $0.field("group", group)
            $0.field("topic", topic)
            if let partition {
                $0.field("partition", partition)
                if let committed { $0.field("committed", committed) } else { $0.nullField("committed") }
                $0.name("owner")
                if let owner {
                    $0.object {
                        $0.field("member", owner.member)
                        $0.field("name", owner.name)
                        $0.field("host", owner.host)
                    }
                } else {
                    $0.null()
                }
            }
            $0.field("end", end)
            $0.field("messages", messages)
            $0.optional("seconds", seconds)
            $0.field("clamped", isClamped)
            $0.optional("rate_in", rateIn)
            $0.optional("rate_out", rateOut)
            $0.optional("catch_up_seconds", rateIn == nil ? nil : catchUpSeconds)
            $0.optional("commit_age_seconds", commitAgeSeconds)
            if let members { $0.field("members", members) } else { $0.nullField("members") }
            $0.field("state", state.rawValue)
        }
    }
}

extension JSONWriter {
    fileprivate mutating func optional(_ name: String, _ value: Double?) {
        if let value { field(name, value) } else { nullField(name) }
    }
}
