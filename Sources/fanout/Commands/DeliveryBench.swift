import Delivery
import Runtime
import System
import Wire

extension BenchRun {
    static let delivery = BenchRun(
        name: "delivery", summary: "one delivery worker on one core, log and links in memory"
    ) { invocation in
        let ms = invocation.options.durationMs("duration") ?? 3_000
        let figures = DeliveryBenchmark(seconds: Double(ms) / 1_000).run()
        if invocation.options.flag("json") {
            var json = JSONWriter()
            json.array { json in
                for figure in figures {
                    json.object { json in
                        json.field("name", figure.name)
                        json.field("value", figure.value)
                        json.field("unit", figure.unit)
                    }
                }
            }
            Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
            return .success
        }
        let width = figures.map(\.name.count).max() ?? 0
        for figure in figures {
            Output.standard("\(figure.name.padded(to: width + 2))\(Int(figure.value.rounded())) \(figure.unit)\n")
        }
        return .success
    }
}
