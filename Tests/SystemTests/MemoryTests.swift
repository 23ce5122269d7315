import System
import Testing

@Suite struct MemoryTests {
    @Test(.enabled(if: !isSanitized)) func `an idle stream costs no more than 250 bytes of memory`() async {
        // In a process of its own, where nothing else allocates.
        let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
            CurrentProcess.raiseDescriptorLimit(to: 16_000)
            let local = try Local()
            let sink = Client.Sink()
            func open(_ count: Int) throws {
                let before = local.streams.count
                for _ in 0..<count {
                    _ = Stream.connect(host: "127.0.0.1", port: local.port, on: local.loop, delegate: sink)
                }
                try local.loop.runUntil(deadlineMs: 60_000) { local.streams.count == before + count }
                // Each has carried data, so that a buffer kept by mistake would show.
                for stream in local.streams.suffix(count) { stream.write([1, 2, 3]) }
                for _ in 0..<10 { local.loop.runOnce(timeoutMs: 5) }
            }
            // In small groups, so that what connecting needs for a moment is there already when the counting starts.
            for _ in 0..<8 { try open(250) }
            let before = CurrentProcess.residentBytes
            let pairs = 5000
            for _ in 0..<20 { try open(250) }
            let each = Int(CurrentProcess.residentBytes - before) / (2 * pairs)
            Output.error("bytes for an idle stream: \(each)\n")
            precondition(each <= 250)
            local.loop.close()
        }
        let report = result.map { String(decoding: $0.standardErrorContent, as: UTF8.self) } ?? ""
        #expect(report.contains("bytes for an idle stream"), "\(report)")
    }
}
