import Bench
import Runtime
import System
import Wire

extension BenchRun {
    static let sockets = BenchRun(
        name: "sockets", summary: "the chat server's sockets: connecting, idle memory, fan-out against plain send"
    ) { invocation in
        guard let executable = CurrentProcess.executablePath else {
            throw UsageError("cannot find this program's own file, which runs the server")
        }
        let limit = CurrentProcess.raiseDescriptorLimit()
        var bench = SocketsBenchmark(
            executable: executable, tokens: invocation.tokens(SocketsBenchmark.tokenKey))
        bench.idleConnections = min(invocation.options.integer("members") ?? 19_000, limit - 1000)
        bench.durationMs = invocation.options.durationMs("duration") ?? 5000
        bench.textBytes = invocation.options.integer("text-bytes") ?? 200
        let report = try bench.run(log: invocation.log)
        var json = JSONWriter()
        report.write(to: &json)
        Output.standard(
            invocation.options.flag("json") ? String(decoding: json.bytes, as: UTF8.self) + "\n" : report.text)
        return .success
    }
}
