internal import CLinux
internal import Glibc

/// This process, as the kernel sees it.
public enum CurrentProcess {
    public static var id: Int32 { getpid() }
    public static var isRoot: Bool { geteuid() == 0 }
    /// Without the program's name.
    public static var arguments: [String] { Array(CommandLine.arguments.dropFirst()) }

    /// Where the running program is.
    public static var executablePath: String? {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
            guard let start = buffer.baseAddress else { return nil }
            let count = unsafe readlink("/proc/self/exe", start, buffer.count)
            guard count > 0 else { return nil }
            return unsafe String(decoding: UnsafeRawBufferPointer(start: start, count: count), as: UTF8.self)
        }
    }

    public static var workingDirectory: String {
        guard let path = unsafe getcwd(nil, 0) else { return "." }
        defer { unsafe free(path) }
        return unsafe String(cString: path)
    }

    public static var hostName: String {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            guard let start = buffer.baseAddress, unsafe gethostname(start, 255) == 0 else { return "localhost" }
            unsafe start[255] = 0
            return unsafe String(cString: start)
        }
    }

    /// Memory that is resident now, in bytes.
    public static var residentBytes: UInt64 {
        guard let text = try? File.text(of: "/proc/self/statm") else { return 0 }
        let fields = text.split(separator: " ")
        return fields.count > 1 ? (UInt64(fields[1]) ?? 0) * UInt64(sysconf(Int32(_SC_PAGESIZE))) : 0
    }

    /// CPU time of all threads, those that ended included.
    public static var cpuNs: UInt64 {
        let time = SystemTime.read(CLOCK_PROCESS_CPUTIME_ID)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// CPU time of the calling thread.
    public static var threadCPUNs: UInt64 {
        let time = SystemTime.read(CLOCK_THREAD_CPUTIME_ID)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Open descriptors now.
    public static var descriptorCount: Int { (try? Directory.list("/proc/self/fd").count - 1) ?? 0 }

    /// How many descriptors the process may open.
    public static var descriptorLimit: Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }

    /// Raises the descriptor limit as far as the system lets it, which for root may be beyond the hard limit. The limit
    /// now.
    @discardableResult
    public static func raiseDescriptorLimit(to wanted: Int = 1 << 20) -> Int {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard unsafe getrlimit(resource, &limit) == 0 else { return 1024 }
        if Int(clamping: limit.rlim_cur) >= wanted { return Int(clamping: limit.rlim_cur) }
        var raised = limit
        raised.rlim_cur = rlim_t(wanted)
        raised.rlim_max = max(limit.rlim_max, rlim_t(wanted))
        if unsafe setrlimit(resource, &raised) != 0 {
            raised.rlim_cur = min(rlim_t(wanted), limit.rlim_max)
            raised.rlim_max = limit.rlim_max
            _ = unsafe setrlimit(resource, &raised)
        }
        return descriptorLimit
    }

    /// A user and its group by name, from the system's database.
    public static func user(named name: String) -> (id: UInt32, group: UInt32)? {
        // Not for concurrent use: the answer is read before another call may replace it. Asked at start-up only.
        guard let entry = unsafe getpwnam(name) else { return nil }
        return unsafe (entry.pointee.pw_uid, entry.pointee.pw_gid)
    }

    /// Ends the process at once with a status, without unwinding.
    public static func exit(_ status: Int32) -> Never { Glibc.exit(status) }
}
