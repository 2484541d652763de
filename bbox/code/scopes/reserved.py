"""Names that a new name must not be: words of the language, and what its library makes visible unasked.

C and C++: keywords (C23, C++23, GNU), the macros, functions and types of the headers that programs include most
(ISO C 7.x, POSIX where it is common), words that tree-sitter's grammars treat as types, and macros that compilers and
systems define in lower case (``linux``, ``unix``). Java: keywords (JLS 3.9), the types of ``java.lang`` and
``java.util`` and the top-level packages, which a variable would obscure (JLS 6.4.2).
"""

from __future__ import annotations

__all__ = ["CPP_RESERVED", "CPP_WORDS", "C_RESERVED", "C_WORDS", "JAVA_RESERVED", "JAVA_WORDS", "names"]


def names(listed: str) -> frozenset[str]:
    """The names of a list that is separated by white space."""
    return frozenset(listed.split())


C_WORDS = names(
    """
    alignas alignof asm auto bool break case char const constexpr continue default do double else enum extern false
    float for goto if inline int long nullptr register restrict return short signed sizeof static static_assert struct
    switch thread_local true typedef typeof typeof_unqual union unsigned void volatile while _Alignas _Alignof _Atomic
    _BitInt _Bool _Complex _Decimal128 _Decimal32 _Decimal64 _Generic _Imaginary _Noreturn _Pragma _Static_assert
    _Thread_local __alignof__ __asm __asm__ __attribute __attribute__ __auto_type __builtin_va_arg __cdecl __const
    __declspec __except __extension__ __fastcall __finally __forceinline __func__ __FUNCTION__ __inline __inline__
    __label__ __leave __PRETTY_FUNCTION__ __restrict __restrict__ __signed __stdcall __thread __thiscall __try
    __typeof __typeof__ __unaligned __vectorcall __volatile __volatile__ _unaligned defined noreturn
    linux unix i386
    NULL EOF errno stdin stdout stderr environ assert offsetof setjmp va_arg va_copy va_end va_list va_start complex I
    BUFSIZ CHAR_BIT CHAR_MAX CHAR_MIN CLOCKS_PER_SEC DBL_EPSILON DBL_MAX DBL_MIN EDOM EINTR EINVAL EIO ENOENT ENOMEM
    EAGAIN EPERM EBUSY EEXIST ERANGE EXIT_FAILURE EXIT_SUCCESS FILE FILENAME_MAX FLT_EPSILON FLT_MAX FLT_MIN HUGE_VAL
    INFINITY INT16_MAX INT16_MIN INT32_MAX INT32_MIN INT64_MAX INT64_MIN INT8_MAX INT8_MIN INT_MAX INT_MIN LLONG_MAX
    LLONG_MIN LONG_MAX LONG_MIN M_E M_PI NAN NDEBUG PATH_MAX RAND_MAX SCHAR_MAX SCHAR_MIN SEEK_CUR SEEK_END SEEK_SET
    SHRT_MAX SHRT_MIN SIGABRT SIGINT SIGKILL SIGSEGV SIGTERM SIG_DFL SIG_ERR SIG_IGN SIZE_MAX SSIZE_MAX TRUE FALSE
    UCHAR_MAX UINT16_MAX UINT32_MAX UINT64_MAX UINT8_MAX UINT_MAX ULLONG_MAX ULONG_MAX USHRT_MAX
    """
)

C_RESERVED = C_WORDS | names(
    """
    main near far interface small min max
    bool_t char16_t char32_t char64_t char8_t charptr_t clock_t div_t double_t fenv_t float_t
    fpos_t int16_t int32_t int64_t int8_t int_fast8_t int_fast16_t int_fast32_t int_fast64_t int_least8_t int_least16_t
    int_least32_t int_least64_t intmax_t intptr_t jmp_buf ldiv_t lldiv_t max_align_t mbstate_t mode_t nullptr_t off_t
    off64_t pid_t pthread_t ptrdiff_t sig_atomic_t size_t sigjmp_buf socklen_t ssize_t time_t uid_t uint uint16_t
    uint32_t uint64_t uint8_t uint_fast8_t uint_fast16_t uint_fast32_t uint_fast64_t uint_least8_t uint_least16_t
    uint_least32_t uint_least64_t uintmax_t uintptr_t ulong ushort wchar_t wctrans_t wctype_t wint_t u8 u16 u32 u64
    s8 s16 s32 s64
    abort abs accept access acos acosh alarm alloca asctime asin asinh asprintf atan atan2 atanh atexit atof atoi atol
    atoll basename bcmp bcopy bind bsearch bzero calloc cbrt ceil chdir chmod chown clearerr clock close closedir
    connect copysign cos cosh creat ctime difftime dirname div dlclose dlopen dlsym dup dup2 erf erfc execl execlp
    execv execve execvp exit exp exp2 expm1 fabs fabsf fchmod fclose fcntl fdim fdopen feof ferror fflush ffs fgetc
    fgetpos fgets fileno floor floorf fma fmax fmin fmod fopen fork fprintf fputc fputs fread free freopen frexp fscanf
    fseek fseeko fsetpos fstat fsync ftell ftruncate fwrite gamma getc getchar getcwd getenv geteuid gethostbyname
    getline getopt getpid getppid gets gettimeofday getuid gmtime hypot ilogb index inet_ntoa ioctl isalnum isalpha
    isascii isatty isblank iscntrl isdigit isfinite isgraph isinf islower isnan isnormal isprint ispunct isspace isupper
    isxdigit j0 j1 jn kill labs ldexp ldiv lgamma link listen llabs llrint localtime log log10 log1p log2 logb longjmp
    lrint lround lseek lstat malloc mblen mbstowcs mbtowc memccpy memchr memcmp memcpy memmem memmove memset mkdir
    mkstemp mktime mmap modf munmap nan nanosleep nearbyint nextafter open opendir pause pclose perror pipe poll popen
    pow pread printf pthread_create pthread_join putc putchar putenv puts pwrite qsort raise rand random read readdir
    readlink realloc realpath recv recvfrom remainder remove remquo rename rewind rindex rint rmdir round roundf scalb
    scanf select send sendto setbuf setenv setlocale setsockopt setvbuf shutdown sigaction siglongjmp signal signbit
    sigsetjmp sin sinf sinh sleep snprintf socket sprintf sqrt sqrtf srand srandom sscanf stat stpcpy strcasecmp strcat
    strchr strcmp strcoll strcpy strcspn strdup strerror strftime strlen strncasecmp strncat strncmp strncpy strndup
    strnlen strpbrk strrchr strsep strsignal strspn strstr strtod strtof strtok strtok_r strtol strtold strtoll strtoul
    strtoull strxfrm symlink sync syscall system tan tanh tempnam tgamma time times tmpfile tmpnam toascii tolower
    toupper trunc truncate ungetc unlink unsetenv usleep utime vfork vfprintf vprintf vscanf vsnprintf vsprintf vsscanf
    wait waitpid wcslen wcstombs wctomb write y0 y1 yn
    """
)

CPP_WORDS = C_WORDS | names(
    """
    and and_eq bitand bitor catch class co_await co_return co_yield compl concept const_cast consteval constinit
    decltype delete dynamic_cast explicit export final friend import module mutable namespace new noexcept not not_eq
    operator or or_eq override private protected public reinterpret_cast requires static_cast template this throw try
    typeid typename using virtual xor xor_eq std
    """
)

CPP_RESERVED = (
    C_RESERVED
    | CPP_WORDS
    | names(
        """
        accumulate array back_inserter binary_search bitset boolalpha byte cerr cin clog complex cout deque endl endls
        enable_if exception fill_n find_if for_each forward forward_list function ifstream initializer_list ios
        iostream iota is_sorted istream istringstream iterator lock_guard lower_bound make_heap make_pair make_shared
        make_tuple make_unique max_element min_element multimap multiset mutex next_permutation nth_element nullopt
        numeric_limits ofstream optional ostream ostringstream partial_sum pop_heap prev_permutation priority_queue
        push_heap queue reverse runtime_error setfill setprecision setw shared_ptr sort stable_sort stod stoi stol
        stoll stoul stoull string string_view stringstream swap this_thread thread tie to_string to_wstring transform
        tuple type_info unique unique_ptr unordered_map unordered_set upper_bound variant vector wcout weak_ptr wstring
        """
    )
)

JAVA_WORDS = names(
    """
    _ abstract assert boolean break byte case catch char class const continue default do double else enum extends final
    finally float for goto if implements import instanceof int interface long native new package private protected
    public return short static strictfp super switch synchronized this throw throws transient try void volatile while
    true false null
    """
)

JAVA_RESERVED = JAVA_WORDS | names(
    """
    var yield record sealed permits when java javax main
    Appendable ArithmeticException ArrayIndexOutOfBoundsException ArrayStoreException AssertionError AutoCloseable
    Boolean Byte CharSequence Character Class ClassCastException ClassLoader ClassNotFoundException
    CloneNotSupportedException Cloneable Comparable Deprecated Double Enum Error Exception Float FunctionalInterface
    IllegalAccessException IllegalArgumentException IllegalMonitorStateException IllegalStateException
    IndexOutOfBoundsException InheritableThreadLocal InstantiationException Integer InterruptedException Iterable
    LinkageError Long Math Module NegativeArraySizeException NoSuchFieldException NoSuchMethodException
    NullPointerException Number NumberFormatException Object OutOfMemoryError Override Package Process ProcessBuilder
    Readable Record ReflectiveOperationException Runnable Runtime RuntimeException SafeVarargs SecurityException
    SecurityManager Short StackOverflowError StackTraceElement StrictMath String StringBuffer StringBuilder
    StringIndexOutOfBoundsException SuppressWarnings System Thread ThreadGroup ThreadLocal Throwable
    UnsupportedOperationException VirtualMachineError Void
    ArrayDeque ArrayList Arrays Base64 BitSet Calendar Collection Collections Comparator Date Deque Enumeration
    EventListener HashMap HashSet Hashtable IdentityHashMap Iterator LinkedHashMap LinkedHashSet LinkedList List
    ListIterator Locale Map NavigableMap NoSuchElementException Objects Optional PriorityQueue Properties Queue Random
    Scanner Set SortedMap SortedSet Stack StringJoiner StringTokenizer TimeZone Timer TimerTask TreeMap TreeSet UUID
    Vector WeakHashMap
    clone equals finalize getClass hashCode notify notifyAll toString wait
    """
)
