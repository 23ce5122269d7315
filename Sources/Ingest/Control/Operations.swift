import Runtime
import System
import Wire

extension ChatLoop {
    /// This server's part of what the operations page shows (docs/ops-api.md).
    func writeOperations(to json: inout JSONWriter) {
        json.field("ts", loop.nowMs)
        json.name("stages")
        json.object {
            $0.name("ingest")
            $0.object {
                $0.field("state", isDraining ? "restarting" : "ok")
                $0.field("processes", 1)
                $0.field("in", metrics.messages.value)
                $0.field("out", metrics.deliveries.value)
                $0.field("refused", metrics.refusedTotal)
                $0.field("sessions", metrics.sessions.value)
            }
        }
        json.name("hops")
        json.object {
            let toLog = metrics.toLog.snapshot()
            $0.name("socket_log")
            $0.object {
                $0.field("count", toLog.total)
                $0.field("p50_ms", toLog.quantileUs(0.5) / 1000)
                $0.field("p99_ms", toLog.quantileUs(0.99) / 1000)
            }
        }
        json.name("instances")
        json.array { json in
            for (record, ageMs) in shared.directory.live(nowMs: Int64(loop.monotonicMs)) {
                json.object {
                    $0.field("instance", record.instance)
                    $0.field("epoch", record.epoch)
                    $0.field("public_url", record.publicURL)
                    $0.field("connections", record.connections)
                    $0.field("draining", record.isDraining)
                    $0.field("heartbeat_age_ms", ageMs)
                }
            }
        }
    }
}
